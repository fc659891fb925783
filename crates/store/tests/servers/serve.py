#!/usr/bin/env python3
"""Runs one real server on loopback for the tests: serve.py KIND DIRECTORY PORT [OPTION=VALUE ...]

KIND is s3 (moto), swift (OpenStack Swift with TempAuth), sftp (OpenSSH) or webdav (wsgidav). Commands come on standard
input, a line each: `start` starts it and answers `ready`, `stop` kills it and answers `stopped`. `missing: ...` says
what is not installed. At the end of standard input everything is killed and the directory removed, so that nothing
outlives the test process, however that ends.
"""

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

START_LIMIT_S = 90


def missing(what):
    print(f"missing: {what}", flush=True)
    sys.exit(0)


def need(program, package):
    found = shutil.which(program) or shutil.which(program, path="/usr/sbin:/usr/local/sbin:/sbin")
    return found or missing(f"{program} (package {package})")


def need_module(name, package):
    try:
        __import__(name)
    except ImportError:
        missing(f"{package} (pip install {package})")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def write(path, text, mode=0o644):
    with open(path, "w") as file:
        file.write(text)
    os.chmod(path, mode)


def descendants(pids):
    """These processes and all below them."""
    parents = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/stat") as stat:
                parents[int(entry)] = int(stat.read().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
    found = list(pids)
    for pid in found:
        found.extend(child for child, parent in parents.items() if parent == pid)
    return found


class Server:
    """Processes that are started and killed together."""

    def __init__(self, directory, port, options):
        self.directory, self.port, self.options = directory, port, options
        self.processes = []
        self.prepare()

    def path(self, *parts):
        return os.path.join(self.directory, *parts)

    def run(self, *command, **more):
        log = open(self.path("log"), "ab")
        process = subprocess.Popen(
            [str(word) for word in command], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, **more
        )
        self.processes.append(process)

    def prepare(self):
        pass

    def start(self):
        self.launch()
        self.wait_for(self.answers)

    def wait_for(self, condition):
        end = time.monotonic() + START_LIMIT_S
        while not condition():
            if any(process.poll() is not None for process in self.processes) or time.monotonic() > end:
                with open(self.path("log"), errors="replace") as log:
                    sys.exit("the server does not start:\n" + log.read()[-4000:])
            time.sleep(0.05)

    def answers(self, port=None):
        try:
            socket.create_connection(("127.0.0.1", port or self.port), timeout=1).close()
            return True
        except OSError:
            return False

    def stop(self):
        # Sessions of sshd are processes of their own, which outlive it.
        for pid in descendants([process.pid for process in self.processes]):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        for process in self.processes:
            process.wait()
        self.processes = []


class S3(Server):
    """The bucket `bucket` is made at each start: moto keeps everything in memory."""

    def prepare(self):
        need_module("moto.server", "moto[server,s3]")

    def launch(self):
        code = "import sys; from moto.server import main; main(sys.argv[1:])"
        self.run(sys.executable, "-c", code, "-H", "127.0.0.1", "-p", self.port)

    def start(self):
        super().start()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("PUT", "/bucket", headers={"Authorization": "AWS4-HMAC-SHA256 Credential=x/20200101/us-east-1/s3/aws4_request"})
        answer = connection.getresponse()
        if answer.status != 200:
            sys.exit(f"moto makes no bucket: {answer.status} {answer.read()!r}")


class Swift(Server):
    """Account test, user tester, key testing; container `container`; tokens live for the option token_life, seconds."""

    def prepare(self):
        need_module("swift", "swift")
        self.memcached = need("memcached", "memcached")
        for name in ["etc", "devices/disk", "cache"]:
            os.makedirs(self.path(name))
        try:
            os.setxattr(self.path("devices/disk"), "user.test", b"1")
        except OSError as error:
            missing(f"a file system with extended attributes at {self.directory} ({error})")
        write(self.path("etc/swift.conf"), "[swift-hash]\nswift_hash_path_suffix = a\n[storage-policy:0]\nname = gold\ndefault = yes\n")
        self.ports = {name: free_port() for name in ["memcached", "account", "container", "object"]}
        for name in ["account", "container", "object"]:
            self.ring(name)
            write(self.path(f"etc/{name}.conf"), self.storage(name))
        write(self.path("etc/proxy.conf"), self.proxy())

    def ring(self, name):
        builder = self.path(f"etc/{name}.builder")
        tool = os.path.join(os.path.dirname(sys.executable), "swift-ring-builder")
        device = f"r1z1-127.0.0.1:{self.ports[name]}/disk"
        for step in [["create", "4", "1", "0"], ["add", device, "1"], ["rebalance"]]:
            done = subprocess.run([tool, builder, *step], capture_output=True, text=True)
            if done.returncode > 1:
                sys.exit(f"swift-ring-builder {step}: {done.stdout}{done.stderr}")

    def default(self, port):
        return (
            f"[DEFAULT]\nbind_ip = 127.0.0.1\nbind_port = {port}\nworkers = 0\nuser = {os.environ.get('USER') or 'root'}\n"
            f"swift_dir = {self.path('etc')}\ndevices = {self.path('devices')}\nmount_check = false\n"
            "log_address = /nonexistent\nlog_udp_host = 127.0.0.1\nlog_udp_port = 9\nfallocate_reserve = 0\n"
        )

    def storage(self, name):
        return (
            f"{self.default(self.ports[name])}[pipeline:main]\npipeline = {name}-server\n"
            f"[app:{name}-server]\nuse = egg:swift#{name}\nrecon_cache_path = {self.path('cache')}\n"
        )

    def proxy(self):
        life = self.options.get("token_life", "86400")
        return (
            f"{self.default(self.port)}"
            "[pipeline:main]\npipeline = healthcheck cache bulk tempauth copy slo dlo proxy-server\n"
            "[app:proxy-server]\nuse = egg:swift#proxy\nallow_account_management = true\naccount_autocreate = true\n"
            "[filter:healthcheck]\nuse = egg:swift#healthcheck\n"
            f"[filter:cache]\nuse = egg:swift#memcache\nmemcache_servers = 127.0.0.1:{self.ports['memcached']}\n"
            f"[filter:tempauth]\nuse = egg:swift#tempauth\nuser_test_tester = testing .admin\ntoken_life = {life}\n"
            "[filter:bulk]\nuse = egg:swift#bulk\n[filter:copy]\nuse = egg:swift#copy\n"
            "[filter:slo]\nuse = egg:swift#slo\n[filter:dlo]\nuse = egg:swift#dlo\n"
        )

    def launch(self):
        more = ["-u", "root"] if os.getuid() == 0 else []
        self.run(self.memcached, "-l", "127.0.0.1", "-p", self.ports["memcached"], "-m", "16", *more)
        for name in ["account", "container", "object"]:
            module = "obj" if name == "object" else name
            code = f"import sys; from swift.{module}.server import main; sys.exit(main())"
            self.run(sys.executable, "-c", code, self.path(f"etc/{name}.conf"))
        code = "import sys; from swift.proxy.server import main; sys.exit(main())"
        self.run(sys.executable, "-c", code, self.path("etc/proxy.conf"))

    def start(self):
        super().start()
        self.wait_for(lambda: all(self.answers(port) for port in self.ports.values()))
        self.wait_for(self.has_container)

    def has_container(self):
        try:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
            connection.request("GET", "/auth/v1.0", headers={"X-Auth-User": "test:tester", "X-Auth-Key": "testing"})
            answer = connection.getresponse()
            answer.read()
            headers = {"X-Auth-Token": answer.headers["X-Auth-Token"] or ""}
            connection.request("PUT", "/v1/AUTH_test/container", headers=headers)
            answer = connection.getresponse()
            answer.read()
            return answer.status in (201, 202)
        except OSError:
            return False


class Sftp(Server):
    """Serves the directory `files` to the user who runs it, who has the key `key`."""

    def prepare(self):
        self.sshd = need("sshd", "openssh-server")
        keygen = need("ssh-keygen", "openssh-client")
        need("ssh", "openssh-client")
        os.makedirs(self.path("files"))
        for name in ["key", "other-key", "host-key"]:
            subprocess.run([keygen, "-q", "-t", "ed25519", "-N", "", "-f", self.path(name)], check=True)
        shutil.copy(self.path("key.pub"), self.path("authorized"))
        with open(self.path("host-key.pub")) as key:
            write(self.path("known-hosts"), f"[127.0.0.1]:{self.port} {key.read()}")
        if os.getuid() == 0:
            os.makedirs("/run/sshd", exist_ok=True)
        write(
            self.path("config"),
            f"ListenAddress 127.0.0.1\nPort {self.port}\nHostKey {self.path('host-key')}\nPidFile none\n"
            f"AuthorizedKeysFile {self.path('authorized')}\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n"
            "KbdInteractiveAuthentication no\nPermitRootLogin yes\nMaxStartups 100\n"
            "Subsystem sftp internal-sftp\n",
        )

    def launch(self):
        self.run(self.sshd, "-D", "-e", "-f", self.path("config"))


class WebDav(Server):
    """Serves the directory `files` to the user tester with the password testing."""

    def prepare(self):
        need_module("wsgidav", "wsgidav")
        need_module("cheroot", "cheroot")
        os.makedirs(self.path("files"))
        config = {
            "host": "127.0.0.1",
            "port": int(self.port),
            "provider_mapping": {"/": self.path("files")},
            "simple_dc": {"user_mapping": {"*": {"tester": {"password": "testing"}}}},
            "http_authenticator": {"accept_basic": True, "accept_digest": False, "default_to_digest": False},
            "verbose": 1,
        }
        write(self.path("config.json"), json.dumps(config))

    def launch(self):
        code = "import sys; from wsgidav.server.server_cli import run; sys.exit(run())"
        self.run(sys.executable, "-c", code, "-c", self.path("config.json"))


KINDS = {"s3": S3, "swift": Swift, "sftp": Sftp, "webdav": WebDav}


def main():
    kind, directory, port, *options = sys.argv[1:]
    # The end is told by standard input alone, so that it is always an orderly one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    server = None
    try:
        server = KINDS[kind](directory, port, dict(option.split("=", 1) for option in options))
        for line in sys.stdin:
            if line.strip() == "start":
                server.start()
                print("ready", flush=True)
            else:
                server.stop()
                print("stopped", flush=True)
    finally:
        if server:
            server.stop()
        shutil.rmtree(directory, ignore_errors=True)


main()
