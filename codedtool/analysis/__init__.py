"""Floor 4: measurements of a trained run (sections 4.2-4.4, appendices C-F). Every analysis takes a `Subject`."""
