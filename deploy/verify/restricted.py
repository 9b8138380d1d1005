"""Reads `docker inspect` of a container and the file of a secret: it may do little, and does not carry the secret."""

import json
import sys
from pathlib import Path

text = sys.stdin.read()
[facts] = json.loads(text)
host, name = facts["HostConfig"], facts["Name"].lstrip("/")
health = facts["State"].get("Health", {}).get("Status")
ports = [binding["HostIp"] for bindings in (host["PortBindings"] or {}).values() for binding in bindings]
checks = {
    "its root can be written": not host["ReadonlyRootfs"],
    "it keeps capabilities": host["CapDrop"] != ["ALL"],
    "it may gain privileges": "no-new-privileges:true" not in (host["SecurityOpt"] or []),
    "its memory has no limit": not host["Memory"],
    f"it runs as {facts['Config']['User']!r}": not facts["Config"]["User"].split(":")[0].isdigit(),
    f"its ports are open on {ports}": any(address != "127.0.0.1" for address in ports),
    "it has no health check": health is None,
    f"it is {health}": facts["State"]["Running"] and health != "healthy",
    "it shows the password": Path(sys.argv[1]).read_text().strip() in text,
}
wrong = [what for what, holds in checks.items() if holds]
sys.exit(f"{name}: {'; '.join(wrong)}" if wrong else 0)
