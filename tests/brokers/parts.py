"""What the checks of brokers and of clients are made of: the real agent with a device at a pty, an observer, certificates."""
import contextlib
import json
import os
import pathlib
import pty
import socket
import subprocess
import threading
import time
import tty

import paho.mqtt.client as paho

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
GATEWAY, OTHER, APPLICATION = "plant-1", "plant-2", "app"
PASSWORDS = {GATEWAY: "first-secret", OTHER: "second-secret", APPLICATION: "app-secret"}
# Generous: a machine that does other things as well is no fault.
DEADLINE = 60

# A user of the broker has what it needs, and no service starts or stays by a test.
os.environ["PATH"] += ":/usr/sbin:/sbin"


class Fault(Exception):
    """Something is not as it has to be."""


def until(what, condition, deadline=DEADLINE):
    """Waits for the condition to give something, and returns that."""
    end = time.monotonic() + deadline
    while not (found := condition()):
        if time.monotonic() > end:
            raise Fault(f"waited in vain for {what}")
        time.sleep(0.02)
    return found


def free_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def build():
    """The agent, as cargo builds it for tests."""
    command = ["cargo", "build", "--locked", "--bin", "sluicegate", "--message-format", "json-render-diagnostics"]
    lines = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
    return [built for line in lines.splitlines() if (built := json.loads(line).get("executable"))][-1]


def start(command, folder, log, **how):
    """A child with all that it starts itself, which the kernel ends with this process."""
    output = open(folder / log, "ab")
    child = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *map(str, command)], cwd=folder, stdin=subprocess.DEVNULL,
                             stdout=output, stderr=subprocess.STDOUT, start_new_session=True, **how)
    output.close()
    return child


def end(child, signal="TERM", deadline=DEADLINE):
    """Ends the child by this signal, and then what is left of its group."""
    if child.poll() is None:
        subprocess.run(["kill", f"-{signal}", str(child.pid)], check=True)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(deadline)
    subprocess.run(["kill", "-KILL", "--", f"-{child.pid}"], stderr=subprocess.DEVNULL)
    return child.wait()


def certificates(folder):
    """An authority, the broker's certificate for 127.0.0.1, one for each gateway, and an authority of somebody else."""
    def openssl(*arguments):
        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
        subprocess.run(["openssl", "req", "-x509", *curve, "-nodes", "-days", "9", *arguments], cwd=folder,
                       stderr=subprocess.DEVNULL, check=True)

    def signed(name, *extensions):
        extensions = ("basicConstraints=critical,CA:false", *extensions)
        openssl("-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem", "-CA", "ca.pem", "-CAkey", "ca.key",
                *(word for extension in extensions for word in ("-addext", extension)))

    openssl("-subj", "/CN=plant", "-keyout", "ca.key", "-out", "ca.pem")
    openssl("-subj", "/CN=plant", "-keyout", "foreign.key", "-out", "foreign.pem")
    signed("broker", "subjectAltName=IP:127.0.0.1")
    signed(GATEWAY)
    signed(OTHER)


class Tank:
    """The far end of a serial line: says levels, and writes down what it is told."""

    def __init__(self):
        self.line, near = pty.openpty()
        tty.setraw(near)
        self.port = os.ttyname(near)
        os.close(near)
        self.told = []
        threading.Thread(target=self._listen, daemon=True).start()

    def say(self, level):
        self.tell({"level": level})

    def tell(self, values):
        os.write(self.line, json.dumps(values).encode() + b"\n")

    def _listen(self):
        rest = b""
        while True:
            try:
                rest += os.read(self.line, 4096)
            except OSError:  # nobody has the port open
                time.sleep(0.02)
                continue
            *lines, rest = rest.split(b"\r\n")
            self.told += [line.decode() for line in lines]


class Agent:
    """The real agent with one device, a tank. Told how it reaches the broker, it is started, ended, killed, asked."""

    def __init__(self, program, folder, tank, url, version="3.1.1", password=PASSWORDS[GATEWAY], ca=None, cert=None):
        self.program, self.folder, self.child = program, folder, None
        folder.mkdir()
        lines = [f'url = "{url}"', f'version = "{version}"', 'keep_alive = "5s"']
        if password:
            (folder / "password").write_text(password)
            lines += ['username = "{id}"', f'password = {{ file = "{folder}/password" }}']
        keys = [f'ca = "{ca}"'] if ca else []
        tls = folder.parent
        keys += [f'cert = "{tls}/{cert}.pem"', f'key = {{ file = "{tls}/{cert}.key" }}'] if cert else []
        lines += ["[mqtt.tls]", *keys] if keys else []
        mqtt = "\n".join(lines)
        (folder / "agent.toml").write_text(f"""
[gateway]
id = "{GATEWAY}"
state_directory = "{folder}/state"
[clock]
trust = "always"
[mqtt]
{mqtt}
[device.tank]
kind = "serial"
port = "{tank.port}"
decode = {{ kind = "json" }}
[device.tank.point.level]
from = "/level"
unit = "cm"
[device.tank.point.valve]
from = "/valve"
type = "int"
min = 0
max = 100
write = "VALVE {{value}}\\r\\n"
[device.tank.point.pump]
from = "/pump"
type = "bool"
write = "PUMP {{value}}\\r\\n"
""")

    def start(self):
        self.child = start([self.program, "--config", "agent.toml", "--log", "debug", "run"], self.folder, "agent.log")

    def ask(self, *words):
        """A command of the program, to its end: exit status and all that it printed."""
        done = subprocess.run([self.program, "--config", "agent.toml", *words], cwd=self.folder, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=DEADLINE * 2)
        return done.returncode, done.stdout

    def waiting(self):
        """How many readings wait for the broker."""
        with socket.socket(socket.AF_UNIX) as control:
            control.connect(str(self.folder / "state/control.sock"))
            control.sendall(b'{"ask":"status"}\n')
            return sum(lane["depth"] for lane in json.loads(control.makefile().readline())["queue"].values())

    def signal(self, name):
        subprocess.run(["kill", f"-{name}", str(self.child.pid)], check=True)

    def stop(self):
        if (status := end(self.child)) != 0:
            raise Fault(f"the agent ended with {status}")

    def kill(self):
        end(self.child, "KILL")


class Client:
    """Somebody else at the broker, who writes down all that comes."""

    def __init__(self, port, user, name=None, will=None, heard=None, password=None):
        self.heard = [] if heard is None else heard
        self.name, self.connected, self.closed, self._granted = name or user, None, threading.Event(), {}
        arguments = [paho.CallbackAPIVersion.VERSION1] if hasattr(paho, "CallbackAPIVersion") else []
        self.client = paho.Client(*arguments, client_id=self.name, protocol=paho.MQTTv311)
        self.client.username_pw_set(user, password or PASSWORDS[user])
        self.client.on_connect = self._on_connect
        self.client.on_subscribe = lambda _, __, number, granted: self._granted.update({number: granted})
        self.client.on_message = self._on_message
        if will:
            self.client.will_set(*will, qos=1)
        self.client.connect("127.0.0.1", port, keepalive=20)
        threading.Thread(target=self._poll, daemon=True).start()
        until(f"the broker to answer {self.name}", lambda: self.connected is not None or self.closed.is_set())
        if not self.connected:
            raise Fault(f"the broker refuses {user}'s connection")

    def _poll(self):
        # A connection that ended stays so: whoever wants another one makes it.
        while self.client.loop(0.2) == paho.MQTT_ERR_SUCCESS:
            pass
        self.closed.set()

    def _on_connect(self, _, __, ___, code):
        self.connected = code == 0

    def _on_message(self, _, __, message):
        payload = message.payload.decode(errors="replace")
        self.heard.append({"topic": message.topic, "payload": payload, "retain": bool(message.retain), "at": time.time()})

    def subscribe(self, *filters):
        """False: the broker refused one, or closed the connection."""
        _, number = self.client.subscribe([(filter, 1) for filter in filters])
        until(f"the answer to {filters}", lambda: number in self._granted or self.closed.is_set())
        return number in self._granted and all(code < 128 for code in self._granted[number])

    def publish(self, topic, payload, retain=False):
        """False: the broker closed the connection instead of an acknowledgement."""
        if not isinstance(payload, str):
            payload = json.dumps(payload)
        message = self.client.publish(topic, payload, qos=1, retain=retain)
        until(f"the broker to take {topic}", lambda: self.closed.is_set() or message.is_published())
        return not self.closed.is_set()

    def wait(self, topic, wanted=lambda payload: True, since=0):
        """The first message on the topic since then, read as JSON where it is some, that is wanted."""
        def look():
            for message in self.heard[since:]:
                if message["topic"] == topic and wanted(read(message["payload"])):
                    return message
        return until(f"{topic} at {self.name}", look)

    def drop(self):
        """Ends the connection without a word, so that a Last Will is due."""
        self.client.socket().shutdown(socket.SHUT_RDWR)
        self.closed.wait(DEADLINE)

    def close(self):
        self.client.disconnect()
        self.closed.wait(DEADLINE)


def read(payload):
    try:
        return json.loads(payload)
    except ValueError:
        return payload
