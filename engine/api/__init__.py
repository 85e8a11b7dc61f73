"""HTTP: orders, market data, health, administration, the dashboard."""
