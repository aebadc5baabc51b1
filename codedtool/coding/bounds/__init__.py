"""Upper bounds: how many words can exist at a distance (this door), and how far apart two schemes can be (`joint`)."""

from codedtool.coding.bounds.upper import UpperBound, bounds_table, highest_possible_distance, upper_bound

__all__ = ["UpperBound", "bounds_table", "highest_possible_distance", "upper_bound"]
