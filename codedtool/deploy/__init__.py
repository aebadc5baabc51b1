"""Floor 4, beside the analyses: exported models, files of binary classifiers, and predictions for image files."""
