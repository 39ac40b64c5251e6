"""A network camera: frames as JPEG over HTTP (multipart/x-mixed-replace), as most cameras send them; on loopback."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np

LEAVES, RESETS, IS_SILENT = "leaves", "resets", "is silent"


@contextmanager
def network_camera(frames: Callable[[], Iterable[np.ndarray]], then: str = LEAVES) -> Iterator[str]:
    """Yields its address. Each viewer gets the frames from the first one on; nothing says how many there are.

    Args:
        then: after the last frame, the camera closes the connection, breaks off within a frame, or sends no more.
    """
    gone = threading.Event()

    class Camera(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            with suppress(ConnectionError):  # the viewer has seen enough
                for frame in frames():
                    self.send(cv2.imencode(".jpg", frame[..., ::-1])[1].tobytes())
            if then == RESETS:
                self.send(b"\xff\xd8half of a frame", size=4000)
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            elif then == IS_SILENT:
                gone.wait()

        def send(self, jpeg: bytes, size: int | None = None) -> None:
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {size or len(jpeg)}\r\n\r\n"
            self.wfile.write(head.encode() + jpeg + b"\r\n")

    server = ThreadingHTTPServer(("127.0.0.1", 0), Camera)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/video"
    finally:
        gone.set()
        server.shutdown()
        server.server_close()
