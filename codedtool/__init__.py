"""codedtool: coding schemes, and image classifiers whose information paths follow them."""

__version__ = "0.1.0"
