from conftest_trigger import moto_server, platform

__all__ = ["moto_server", "platform"]
