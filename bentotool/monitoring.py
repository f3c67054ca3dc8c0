"""Public name of what monitors of one's own are made from, as ``from bentotool.monitoring import MonitorBase``."""

from bentotool.sdk.monitor import MonitorBase, NoOpMonitor, monitor

__all__ = ["MonitorBase", "NoOpMonitor", "monitor"]
