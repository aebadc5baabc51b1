"""Floor 4: figures of the analyses' results, and one page with all of them."""
