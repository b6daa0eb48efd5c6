"""How near a model comes to the truth: metrics, proof and comparison strips."""
