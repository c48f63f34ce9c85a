"""An RTSP server as cameras have it: GStreamer's, with a film that each client gets from its start.

    /usr/bin/python3 gst_server.py PORT FILM.mp4 [--user NAME --password WORD]

The film is H.264; /live/0 to /live/63 are served. Needs the packages gir1.2-gst-rtsp-server-1.0,
python3-gi, gstreamer1.0-plugins-good and -bad of Debian and its kin; run by the system's Python,
for which they are made.
"""

import argparse

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402


class Factory(GstRtspServer.RTSPMediaFactory):
    """A film for each client that asks."""

    def __init__(self, film):
        super().__init__()
        self.set_launch(
            f'( filesrc location="{film}" ! qtdemux ! h264parse '
            "! rtph264pay name=pay0 pt=96 config-interval=1 )"
        )
        self.set_shared(False)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("port")
    parser.add_argument("film")
    parser.add_argument("--user", default="")
    parser.add_argument("--password", default="")
    given = parser.parse_args()
    Gst.init(None)
    server = GstRtspServer.RTSPServer.new()
    server.set_address("127.0.0.1")
    server.set_service(given.port)
    factory = Factory(given.film)
    if given.user:
        auth, token = GstRtspServer.RTSPAuth.new(), GstRtspServer.RTSPToken.new()
        token.set_string("media.factory.role", "viewer")
        auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
        auth.add_digest(given.user, given.password, token)
        server.set_auth(auth)
        permissions = GstRtspServer.RTSPPermissions.new()
        for what in ("media.factory.access", "media.factory.construct"):
            permissions.add_permission_for_role("viewer", what, True)
        factory.set_permissions(permissions)
    for number in range(64):
        server.get_mount_points().add_factory(f"/live/{number}", factory)
    server.attach(None)
    GLib.MainLoop().run()


if __name__ == "__main__":
    main()
