"""Measures matchd beside anchors, in one run. Not part of the wheel; see bench/README.md."""
