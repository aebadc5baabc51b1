"""Floor 2: networks whose information paths follow coding schemes."""

from codedtool.models.coded_sum import CodedSum
from codedtool.models.network import CodedResNeXt, Output
from codedtool.models.presets import assign_schemes, build_network, preset_for

__all__ = ["CodedResNeXt", "CodedSum", "Output", "assign_schemes", "build_network", "preset_for"]
