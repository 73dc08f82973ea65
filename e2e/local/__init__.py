"""The proof of `chaperone run`, with real clients and servers."""
