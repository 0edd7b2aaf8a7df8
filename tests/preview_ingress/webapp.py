"""A small web application as people write them: assets, a form with a log-in, an event stream and a WebSocket.

Standard library alone, for it runs in a sandbox: ``python3 webapp.py PORT BASE``, where BASE is what the page's own
links begin with: ``/`` as most applications have it, or ``./`` for one that was written to live under a path.
"""

from __future__ import annotations

import base64
import hashlib
import http.server
import struct
import sys
from urllib.parse import parse_qs

PAGE = """<!doctype html><title>app</title><link rel="stylesheet" href="{base}style.css?v=1">
<h1 id="head">Hello</h1><img id="dot" src="{base}dot%20one.gif">
<form id="login" method="post" action="{base}login"><input name="user" value="Ann &amp; Bob"><button>Go</button></form>
<script>const base = "{base}"</script><script src="{base}app.js"></script>"""
SCRIPT = """
const results = {};
const at = (path) => new URL(base + path, location.href);
const element = (id) => document.getElementById(id);
const loaded = new Promise((done) => addEventListener("load", done));
results.style = loaded.then(() => getComputedStyle(element("head")).color);
results.image = loaded.then(() => element("dot").naturalWidth);
results.json = fetch(at("api/items"), {method: "PUT", body: JSON.stringify({n: 7})}).then((answer) => answer.json());
results.events = new Promise((done) => {
    const source = new EventSource(at("events")), seen = [];
    source.onmessage = (event) => { seen.push(event.data); if (seen.length == 3) { source.close(); done(seen); } };
});
const socket = () => new Promise((done, failed) => {
    const url = at("socket");
    url.protocol = location.protocol.replace("http", "ws");
    const ws = new WebSocket(url, ["chat.v2", "chat.v1"]);
    ws.binaryType = "arraybuffer";
    const seen = [];
    ws.onopen = () => { ws.send("text \\u2713"); ws.send(new Uint8Array(70000).fill(5)); };
    ws.onmessage = ({data}) => {
        seen.push(typeof data == "string" ? data : data.byteLength);
        if (seen.length == 2) ws.close(4001, "enough");
    };
    ws.onerror = () => failed(new Error("the WebSocket failed"));
    ws.onclose = ({code, reason}) => done({protocol: ws.protocol, seen, code, reason});
});
"""
STYLE = "h1 { color: rgb(1, 2, 3) }"
GIF = base64.b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")
HANDSHAKE = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    base = "/"

    def do_GET(self) -> None:
        match self.path.partition("?")[0]:
            case "/":
                self.answer("text/html; charset=utf-8", PAGE.format(base=self.base).encode())
            case "/style.css":
                self.answer("text/css", STYLE.encode())
            case "/app.js":
                self.answer("text/javascript", SCRIPT.encode())
            case "/dot%20one.gif":
                self.answer("image/gif", GIF)
            case "/welcome":
                told = f"{self.headers.get('Cookie', 'no cookie')} at {self.headers['Host']}"
                self.answer("text/plain; charset=utf-8", told.encode())
            case "/events":
                self.events()
            case "/socket":
                self.socket()
            case _:
                self.answer("text/plain", b"not found", 404)

    def do_PUT(self) -> None:
        self.answer("application/json", b'{"got":' + self.body() + b"}")

    def do_POST(self) -> None:
        user = parse_qs(self.body().decode())["user"][0]
        self.send_response(303)
        self.send_header("Set-Cookie", f"user={user.encode().hex()}; HttpOnly; Path=/; SameSite=Strict")
        self.send_header("Set-Cookie", "theme=dark; Path=/")
        self.send_header("Location", "/welcome")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers["Content-Length"]))

    def answer(self, kind: str, content: bytes, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def events(self) -> None:
        """Three events, and then silence: a browser that waits for the end to show them would wait for ever."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for number in range(3):
            self.wfile.write(f"data: event {number}\n\n".encode())
        self.rfile.read(1)
        self.close_connection = True

    def socket(self) -> None:
        """Echoes messages, and the close; refuses pages of other origins, as such servers do."""
        if self.headers.get("Upgrade", "").lower() != "websocket":
            return self.answer("text/plain", b"a WebSocket, please", 426)
        key = self.headers["Sec-WebSocket-Key"].encode()
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Protocol", self.headers["Sec-WebSocket-Protocol"].split(",")[0].strip())
        digest = hashlib.sha1(key + HANDSHAKE, usedforsecurity=False).digest()
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(digest).decode())
        self.end_headers()
        self.close_connection = True
        opcode = 0
        while opcode != 8:
            opcode, payload = self.frame()
            length = len(payload)
            size = bytes([length]) if length < 126 else struct.pack("!BQ", 127, length)
            self.wfile.write(bytes([0x80 | (10 if opcode == 9 else opcode)]) + size + payload)
        return None

    def frame(self) -> tuple[int, bytes]:
        """One masked frame, which is one message here."""
        first, length = self.rfile.read(2)
        length &= 127
        if length > 125:
            length = int.from_bytes(self.rfile.read(2 if length == 126 else 8))
        mask = self.rfile.read(4) * (length // 4 + 1)
        data = int.from_bytes(self.rfile.read(length)) ^ int.from_bytes(mask[:length])
        return first & 15, data.to_bytes(length)


if __name__ == "__main__":
    Handler.base = sys.argv[2]
    http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
