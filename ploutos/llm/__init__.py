"""The client of a language model: providers, cassette, circuit breaker, GPU unloading. It knows no market."""
