"""Measurements and the plain references they are measured against; nothing here is imported by the package."""
