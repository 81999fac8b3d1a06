from servers import moto_server

__all__ = ["moto_server"]
