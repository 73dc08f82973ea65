"""The proof: what Chaperone promises, tried in a real cluster. Run it with e2e/run."""
