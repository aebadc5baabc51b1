"""Floor 4, beside the analyses: models and answers that leave the project (exported files, predictions)."""
