"""The servers that are measured: started on free ports of loopback with their data in one directory, and stopped again."""

import os
import re
import shutil
import socket
import subprocess
import time

START_SECONDS = 30
STOP_SECONDS = 30
NGINX_WORKERS = 2


class Broken(Exception):
    """The benchmark cannot go on; the message says why."""


def free_ports(n):
    """Ports that are free at this moment."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def clean_environment():
    """This one without what would set flags of kvDB or turn its calls to a proxy."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("KVDB_") and k not in ("PORT", "RUST_LOG")}
    return {**kept, "NO_PROXY": "*"}


def listens(port):
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


class Server:
    """Processes that serve one base URL, or several (`bases`, by the name of the system): `begin` starts them, `stop` ends them."""

    def __init__(self, directory):
        self.directory = directory
        self.children = {}
        os.makedirs(directory)

    def start(self, name, *command):
        with open(self.log(name), "wb") as log:
            self.children[name] = subprocess.Popen(
                command, cwd=self.directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=clean_environment())

    def log(self, name):
        return os.path.join(self.directory, f"{name}.log")

    def until(self, ready, what):
        end = time.monotonic() + START_SECONDS
        while not ready():
            for name, child in self.children.items():
                if child.poll() is not None:
                    raise Broken(f"{name} ended with {child.returncode}:\n{self.last_words()}")
            if time.monotonic() > end:
                raise Broken(f"{what} is not ready after {START_SECONDS} s:\n{self.last_words()}")
            time.sleep(0.05)

    def last_words(self):
        """The ends of the logs."""
        words = []
        for name in self.children:
            with open(self.log(name), errors="replace") as f:
                words += [f"{name}: {line}" for line in f.readlines()[-5:]]
        return "".join(words)

    def processes(self):
        """Pids by name."""
        return {name: [child.pid] for name, child in self.children.items()}

    def stop(self):
        """Ends all, the last one started first, and removes their data."""
        for child in reversed(list(self.children.values())):
            child.terminate()
            try:
                child.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        shutil.rmtree(self.directory, ignore_errors=True)


class Kvdb(Server):
    """A master, and as many volumes as there are replicas."""

    def __init__(self, directory, programs, replicas):
        super().__init__(directory)
        master, *volumes = free_ports(1 + replicas)
        self.programs, self.replicas = programs, replicas
        self.master, self.volumes = master, volumes
        self.bases = {f"kvdb-{replicas}": f"http://127.0.0.1:{master}"}
        self.expect = "auto"

    def begin(self):
        for i, port in enumerate(self.volumes, 1):
            name = "volume" if self.replicas == 1 else f"volume {i}"
            self.start(name, f"{self.programs}/volume", "--port", str(port), f"{self.directory}/volume{i}")
        addresses = ",".join(f"127.0.0.1:{port}" for port in self.volumes)
        flags = ("--port", str(self.master), "--replicas", str(self.replicas))
        self.start("master", f"{self.programs}/master", *flags, addresses, f"{self.directory}/db")
        health = [f"{self.programs}/kvdb", "health", self.bases[f"kvdb-{self.replicas}"]]
        self.until(lambda: subprocess.run(health, env=clean_environment(), capture_output=True).returncode == 0, "kvDB")


class Nginx(Server):
    """nginx with WebDAV over one directory, on two ports: with `tcp_nopush`, and without it, which is nginx's default."""

    def __init__(self, directory):
        super().__init__(directory)
        self.ports = free_ports(2)
        self.bases = {name: f"http://127.0.0.1:{port}" for name, port in zip(("nginx", "nginx-nopush"), self.ports)}
        self.expect = "never"

    def begin(self):
        os.makedirs(f"{self.directory}/values")
        with open(f"{self.directory}/nginx.conf", "w") as f:
            f.write(self.configuration(*self.ports))
        self.start("nginx", "nginx", "-e", f"{self.directory}/error.log", "-c", f"{self.directory}/nginx.conf")
        self.until(lambda: all(map(listens, self.ports)) and len(self.workers()) == NGINX_WORKERS, "nginx")

    def configuration(self, plain, nopush):
        # Workers of a root nginx would be another user, who may not enter the directory.
        user = "user root root;\n" if os.geteuid() == 0 else ""
        temporary = "".join(f"    {kind}_temp_path {self.directory}/temporary-{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        server = "    server {{ listen 127.0.0.1:{}; tcp_nopush {}; location / {{ dav_methods PUT DELETE; create_full_put_path on; }} }}\n"
        return (
            f"{user}daemon off;\nworker_processes {NGINX_WORKERS};\npid {self.directory}/nginx.pid;\nerror_log {self.directory}/error.log;\n"
            f"events {{ worker_connections 1024; }}\nhttp {{\n{temporary}    root {self.directory}/values;\n    access_log off;\n"
            "    sendfile on;\n    client_max_body_size 0;\n    keepalive_requests 1000000000;\n    default_type application/octet-stream;\n"
            f"{server.format(plain, 'off')}{server.format(nopush, 'on')}}}\n")

    def path_of(self, key):
        """The file of a value."""
        return f"{self.directory}/values/{key}"

    def workers(self):
        pid = self.children["nginx"].pid
        with open(f"/proc/{pid}/task/{pid}/children") as f:
            return [int(child) for child in f.read().split()]

    def processes(self):
        return {"nginx": [self.children["nginx"].pid, *self.workers()]}


class Constant302(Server):
    """A bare hyper server whose every answer is the same redirect."""

    def __init__(self, directory, programs):
        super().__init__(directory)
        self.programs = programs
        (self.port,) = free_ports(1)
        self.bases = {"hyper-302": f"http://127.0.0.1:{self.port}"}
        self.expect = "never"

    def begin(self):
        self.start("hyper", f"{self.programs}/examples/constant_302", str(self.port))
        self.until(lambda: listens(self.port), "the constant 302")


def nginx_version():
    said = subprocess.run(["nginx", "-v"], capture_output=True, text=True).stderr
    return re.sub(r".*nginx/(\S+).*", r"nginx \1", said.strip())
