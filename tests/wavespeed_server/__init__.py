"""A scripted HTTP server that stands in for the WaveSpeed REST API v3. See `Server`, `ServerProcess` and `faults`."""

from .faults import NoSuchFault
from .process import ServerProcess
from .records import Prediction, Settings, Upload
from .server import Server
from .wire import Request

__all__ = ["NoSuchFault", "Prediction", "Request", "Server", "ServerProcess", "Settings", "Upload"]
