"""Floor 4: figures of the analyses' results, and one HTML page with all results of a run."""
