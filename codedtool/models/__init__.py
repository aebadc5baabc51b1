"""Floor 2: networks whose information paths follow coding schemes."""

from codedtool.models.coded_sum import CodedSum
from codedtool.models.network import CodedNetwork, Output
from codedtool.models.presets import assign_schemes, build_network, preset_for

__all__ = ["CodedNetwork", "CodedSum", "Output", "assign_schemes", "build_network", "preset_for"]
