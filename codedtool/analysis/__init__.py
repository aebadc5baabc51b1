"""Floor 4: what a trained run gives (sections 4.2-4.4, appendices C-F); every analysis takes a `Subject`."""
