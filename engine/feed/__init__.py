"""The feed: durable events become market data and private reports over WebSocket."""
