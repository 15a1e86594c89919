"""A recorded deployment that has nginx where the embedded edge stands otherwise."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

import psutil
from tests.support.cloud_recorder import RecordedDeployment
from tests.support.deployment import PROGRAM, Part
from tests.support.nginx_server import MODULES, require_nginx

LIMITS = ("SIGN_IN", "API", "DATA", "STATIC")


@dataclass
class RecordedNginx(RecordedDeployment):
    """Its part "edge" is `nginx run`; the nginx that this starts are "edge" and their process id."""

    def start(self, **edge: object) -> None:
        """Start everything. Skips the test where nginx is missing."""
        require_nginx()
        (self.root / "nginx").mkdir(mode=0o700)
        super().start(**edge)

    def processes(self) -> dict[str, psutil.Process]:
        """The cloud's processes by name, with all that they started."""
        found = super().processes()
        of_edge = {child.pid for child in found["edge"].children(recursive=True)}
        return {f"edge {each.pid}" if each.pid in of_edge else name: each for name, each in found.items()}

    def _service(self, name: str, service: str, /, **settings: object) -> Part:
        if service != "edge":
            return super()._service(name, service, **settings)
        edge = {f"C2L_EDGE_{key.upper()}": str(value) for key, value in settings.items()}
        return self.spawn(name, (*PROGRAM, "nginx", "run"), {**edge, **self._nginx()}, self.logs)

    def _nginx(self) -> Mapping[str, str]:
        """Return nginx's settings; what it writes down besides its log is below `root` too."""
        return {
            "C2L_NGINX_STATE_DIR": str(self.root / "nginx"),
            "C2L_NGINX_ACME_ROOT": str(self.root / "nginx"),
            "C2L_NGINX_MODULES_DIR": str(MODULES),
            "C2L_NGINX_CONNECTIONS": "2048",
            "C2L_NGINX_USER": "root" if os.geteuid() == 0 else "",  # the folders are for their owner alone
            **{f"C2L_EDGE_LIMIT_{kind}": "off" for kind in LIMITS},
            "PATH": os.environ.get("PATH", "") + ":/usr/sbin",
        }
