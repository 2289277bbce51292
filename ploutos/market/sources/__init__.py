"""Where bars come from; each module reads one source into a long frame: symbol, timestamp, OHLCV."""
