"""Each broker as it is installed here, with what config/brokers has for it, on free ports in a folder of its own."""
import base64
import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import zipfile

from parts import APPLICATION, GATEWAY, OTHER, PASSWORDS, ROOT, Fault, end, free_ports, listens, start, until

CONFIG = ROOT / "config/brokers"
CACHE = pathlib.Path(os.environ.get("SLUICEGATE_CACHE") or pathlib.Path.home() / ".cache/sluicegate")
# What the brokers in JavaScript are, once for all.
PACKAGES = {"aedes": ("aedes@1.2.0", "aedes-server-factory@0.2.1"), "mosca": ("mosca@2.8.3",)}
# A Java or Erlang machine on a busy processor.
STARTING = 240


def output(*command):
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True).stdout


def debian(package):
    """The version of the program, without what Debian adds to it; None where the package is not there."""
    found = subprocess.run(["dpkg-query", "-W", "-f", "${db:Status-Status} ${Version}", package], stdout=subprocess.PIPE,
                           stderr=subprocess.DEVNULL, text=True).stdout.split()
    return re.sub(r"^\d+:|[-+].*", "", found[1]) if found[:1] == ["installed"] else None


def refuses_5(site):
    site.refused("mqtt", ["failed"], version="5")


class Broker:
    """One broker. `lacks` has what it can't do: why, and what shows it at a site. `tls_login` is how a gateway logs in
    with TLS where it is not by its password."""
    lacks, tls_login = {}, {}
    schemes = ("mqtt", "mqtts", "ws", "wss")

    def __init__(self, folder):
        self.folder, self.child = folder, None
        self.ports = dict(zip(self.schemes, free_ports(len(self.schemes))))
        self.ports.setdefault("certificate", self.ports["mqtts"])
        self.prepare()

    @staticmethod
    def missing():
        """Why it can't run here, or None."""
        return None

    def url(self, scheme):
        path = "/mqtt" if scheme in ("ws", "wss") else ""
        return f"{'mqtts' if scheme == 'certificate' else scheme}://127.0.0.1:{self.ports[scheme]}{path}"

    def start(self):
        self.child = self.run()
        for scheme in self.schemes:
            until(f"{self.name} to listen for {scheme}, see {self.folder}/log", lambda: self._listens(scheme), STARTING)
        until(f"{self.name} to be ready, see {self.folder}", self.ready, STARTING)

    def _listens(self, scheme):
        if self.child.poll() is not None:
            raise RuntimeError(f"{self.name} ended: see {self.folder}/log")
        return listens(self.ports[scheme])

    def stop(self):
        if self.child:
            end(self.child)

    def ready(self):
        """Whether it knows its users, where it listens before."""
        return True

    def close(self):
        """Ends what helps the broker, once that has ended."""

    def fill(self, source, target, changes):
        """A file of config/brokers with what differs here; what is changed has to stand there."""
        text = (CONFIG / source).read_text()
        for old, new in changes.items():
            if old not in text:
                raise RuntimeError(f"{source} says nothing of {old}")
            text = text.replace(old, str(new))
        target.write_text(text)


class Debian(Broker):
    """A broker of Debian's."""

    @classmethod
    def version(cls):
        return debian(cls.package)

    @classmethod
    def missing(cls):
        return None if cls.version() else f"there is no package {cls.package}"


class Mosquitto(Debian):
    name, package, schemes = "mosquitto", "mosquitto", ("mqtt", "mqtts", "certificate", "ws", "wss")

    def prepare(self):
        ports = {f"listener {shipped}": f"listener {self.ports[scheme]}"
                 for shipped, scheme in ((1883, "mqtt"), (8883, "mqtts"), (8884, "certificate"), (9001, "ws"), (9883, "wss"))}
        self.fill("mosquitto/sluicegate.conf", self.folder / "sluicegate.conf",
                  ports | {"/etc/mosquitto/tls": self.folder.parent, "/etc/mosquitto": self.folder})
        self.fill("mosquitto/sluicegate.acl", self.folder / "sluicegate.acl", {})
        for user, password in PASSWORDS.items():
            create = [] if (self.folder / "sluicegate.passwd").exists() else ["-c"]
            output("mosquitto_passwd", "-b", *create, str(self.folder / "sluicegate.passwd"), user, password)
        # As root it would become a user who may not read this folder.
        with open(self.folder / "sluicegate.conf", "a") as conf:
            conf.write("user root\n")

    def run(self):
        return start(["mosquitto", "-c", "sluicegate.conf"], self.folder, "log")


class JavaScript(Broker):
    """A broker from npm's registry, installed once for each version."""
    node, overrides = 0, {}

    @classmethod
    def tools(cls):
        return CACHE / "tools" / "-".join(cls.packages()).replace("@", "-")

    @classmethod
    def packages(cls):
        return PACKAGES[cls.name.lower()]

    @classmethod
    def version(cls):
        return cls.packages()[0].split("@")[1]

    @classmethod
    def missing(cls):
        if not shutil.which("node") or not shutil.which("npm"):
            return "node and npm are not there"
        if int(output("node", "-p", "process.versions.node").split(".")[0]) < cls.node:
            return f"it needs Node {cls.node} or newer"
        if not cls.tools().exists():
            new = cls.tools().with_suffix(f".{os.getpid()}")
            new.mkdir(parents=True)
            (new / "package.json").write_text(json.dumps({"overrides": cls.overrides}))
            print(f"installing {' '.join(cls.packages())}", flush=True)
            subprocess.run(["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--silent",
                            *cls.packages()], cwd=new, check=True)
            new.rename(cls.tools())
        return None

    def prepare(self):
        users = {}
        for user, password in PASSWORDS.items():
            hashed = f"require('{CONFIG}/javascript/rights.js').hash('{password}')"
            users[user] = output("node", "-p", hashed).strip()
        tls = self.folder.parent
        site = {"tools": f"{self.tools()}", "rights": f"{CONFIG}/javascript", "users": users, "ports": self.ports,
                "ca": f"{tls}/ca.pem", "cert": f"{tls}/broker.pem", "key": f"{tls}/broker.key"}
        (self.folder / "site.json").write_text(json.dumps(site))

    def run(self):
        return start(["node", pathlib.Path(__file__).parent / self.program, "site.json"], self.folder, "log")


class Aedes(JavaScript):
    name, program, node = "Aedes", "aedes.mjs", 20
    lacks = {"MQTT 5": ("it speaks 3.1.1", refuses_5)}


class Mosca(JavaScript):
    # What it was written for: a later one takes no empty schema.
    name, program, overrides = "Mosca", "mosca.js", {"jsonschema": "1.2.2"}
    lacks = {"MQTT 5": ("it speaks 3.1.1", refuses_5)}


class RabbitMQ(Debian):
    name, package, node, starts = "RabbitMQ", "rabbitmq-server", "sluicegate@localhost", 0
    lacks = {"MQTT 5": ("3.10 speaks 3.1.1", refuses_5)}

    def prepare(self):
        changes = {f" = {shipped}": f" = 127.0.0.1:{self.ports[scheme]}"
                   for shipped, scheme in (("127.0.0.1:1883", "mqtt"), ("0.0.0.0:8883", "mqtts"))}
        changes |= {f"port = {shipped}": f"port = {self.ports[scheme]}" for shipped, scheme in ((15675, "ws"), (15676, "wss"))}
        amqp, self.epmd_port, self.node_port = free_ports(3)
        self.fill("rabbitmq/rabbitmq.conf", self.folder / "rabbitmq.conf",
                  changes | {":5672": f":{amqp}", "0.0.0.0": "127.0.0.1", "/etc/rabbitmq/tls": self.folder.parent,
                             "/etc/rabbitmq": self.folder})
        (self.folder / "enabled_plugins").write_text("[rabbitmq_mqtt,rabbitmq_web_mqtt,rabbitmq_auth_mechanism_ssl].")
        shipped = json.loads((CONFIG / "rabbitmq/definitions.json").read_text())
        (self.folder / "definitions.json").write_text(json.dumps(
            {key: [entry for line in lines for entry in self.entries(line)] for key, lines in shipped.items()}))

    @staticmethod
    def entries(line):
        """What stands there of the gateway of the documents, for each gateway here, with the passwords' hashes."""
        users = [GATEWAY, OTHER] if "pump-house-7" in line.values() else [APPLICATION]
        for user in users:
            salt = os.urandom(4)
            hashed = base64.b64encode(salt + hashlib.sha256(salt + PASSWORDS[user].encode()).digest()).decode()
            text = json.dumps(line).replace("HASH-OF-PUMP-HOUSE-7", hashed).replace("HASH-OF-APP", hashed)
            yield json.loads(text.replace("pump-house-7", user))

    def run(self):
        here = {"HOME": self.folder, "ERL_EPMD_PORT": self.epmd_port, "ERL_EPMD_ADDRESS": "127.0.0.1",
                "RABBITMQ_NODENAME": self.node, "RABBITMQ_DIST_PORT": self.node_port,
                "RABBITMQ_CONFIG_FILE": self.folder / "rabbitmq.conf", "RABBITMQ_MNESIA_BASE": self.folder / "mnesia",
                "RABBITMQ_LOG_BASE": self.folder, "RABBITMQ_ENABLED_PLUGINS_FILE": self.folder / "enabled_plugins",
                # No shell stands between, which would outlive this process.
                "detached": "yes"}
        environment = os.environ | {key: str(value) for key, value in here.items()}
        if not listens(self.epmd_port):
            self.epmd = start(["epmd", "-port", self.epmd_port], self.folder, "epmd.log", env=environment)
            until("epmd to listen", lambda: listens(self.epmd_port))
        self.starts += 1
        server = ["/usr/lib/rabbitmq/bin/rabbitmq-server", "-noinput"]
        return start(server, self.folder, "log", env=environment)

    def ready(self):
        log = self.folder / f"{self.node}.log"
        return log.exists() and log.read_text().count("Server startup complete") == self.starts

    def close(self):
        end(self.epmd)


def no_websocket(_):
    """Debian leaves the module out that has the transport."""
    for jar in pathlib.Path(ActiveMQ.home).glob("lib/**/*.jar"):
        if jar.exists() and "META-INF/services/org/apache/activemq/transport/ws" in zipfile.ZipFile(jar).namelist():
            raise Fault(f"{jar} has the transport ws")


class ActiveMQ(Debian):
    name, package, home, schemes = "ActiveMQ", "activemq", "/usr/share/activemq", ("mqtt", "mqtts")
    tls_login = {"password": None, "cert": GATEWAY}
    _websocket = ("Debian's package has no `ws` connector", no_websocket)
    lacks = {"MQTT 5": ("it speaks 3.1.1", refuses_5), "WebSocket": _websocket, "WebSocket over TLS": _websocket}

    def prepare(self):
        tls = self.folder.parent
        output("openssl", "pkcs12", "-export", "-in", f"{tls}/broker.pem", "-inkey", f"{tls}/broker.key",
               "-passout", "pass:changeit", "-out", f"{self.folder}/broker.p12")
        output("keytool", "-importcert", "-noprompt", "-alias", "ca", "-file", f"{tls}/ca.pem", "-storetype", "PKCS12",
               "-storepass", "changeit", "-keystore", f"{self.folder}/ca.p12")
        self.fill("activemq/activemq.xml", self.folder / "activemq.xml",
                  {"127.0.0.1:1883": f"127.0.0.1:{self.ports['mqtt']}", "0.0.0.0:8884": f"127.0.0.1:{self.ports['mqtts']}",
                   "/etc/activemq/instances-available/sluicegate/tls": self.folder})
        self.fill("activemq/login.config", self.folder / "login.config", {})
        self.fill("activemq/users.properties", self.folder / "users.properties",
                  {"PASSWORD-OF-APP": PASSWORDS[APPLICATION], "PASSWORD-OF-PUMP-HOUSE-7": "pump-house-7's"})
        for name in ("certificates.properties", "groups.properties"):
            self.fill(f"activemq/{name}", self.folder / name, {})
        # Debian has what the MQTT connector needs in another package, and leads no link there.
        (self.folder / "lib").mkdir()
        (self.folder / "lib/mqtt-client.jar").symlink_to("/usr/share/java/mqtt-client.jar")
        for name in ("activemq.xml", "users.properties", "certificates.properties", "groups.properties"):
            file = self.folder / name
            file.write_text("".join(self.lines(file.read_text())))

    @staticmethod
    def lines(text):
        """What stands there of the gateway of the documents, for each gateway here."""
        for line in text.splitlines(keepends=True):
            if "all=" in line:
                yield line.replace("pump-house-7", f"{GATEWAY},{OTHER}")
            elif "pump-house-7" in line:
                for user in (GATEWAY, OTHER):
                    yield line.replace("pump-house-7's", PASSWORDS[user]).replace("pump-house-7", user)
            else:
                yield line

    def run(self):
        options = [f"-Dactivemq.home={self.home}", *(f"-Dactivemq.{key}={self.folder}" for key in ("base", "conf", "data")),
                   f"-Djava.security.auth.login.config={self.folder}/login.config", "-Xmx256M"]
        jar = f"{self.home}/bin/activemq.jar"
        return start(["java", *options, "-jar", jar, "start", f"xbean:file:{self.folder}/activemq.xml"], self.folder, "log")


def no_user_by_certificate(site):
    site.refused("mqtts", ["failed"], ca=site.folder / "ca.pem", cert=GATEWAY, password=None)


class HiveMQ(Broker):
    """HiveMQ CE, which neither Debian nor npm has: from the folder that SLUICEGATE_HIVEMQ names, with its file RBAC extension
    among the extensions there."""
    name, home, extension = "HiveMQ", pathlib.Path(os.environ.get("SLUICEGATE_HIVEMQ", "")), "hivemq-file-rbac-extension"
    lacks = {"client certificate": ("its file RBAC extension knows users by their passwords", no_user_by_certificate)}

    @classmethod
    def version(cls):
        return re.sub(r"^\D*", "", cls.home.resolve().name)

    @classmethod
    def missing(cls):
        if "SLUICEGATE_HIVEMQ" not in os.environ:
            return "SLUICEGATE_HIVEMQ does not name its folder"
        if not (cls.home / "extensions" / cls.extension).is_dir():
            return f"there is no {cls.home}/extensions/{cls.extension}"
        return None

    def prepare(self):
        tls, extension = self.folder.parent, self.folder / "extensions" / self.extension
        output("openssl", "pkcs12", "-export", "-in", f"{tls}/broker.pem", "-inkey", f"{tls}/broker.key",
               "-passout", "pass:changeit", "-out", f"{self.folder}/broker.p12")
        ports = {f">{shipped}<": f">{self.ports[scheme]}<"
                 for shipped, scheme in ((1883, "mqtt"), (8883, "mqtts"), (8000, "ws"), (8443, "wss"))}
        self.fill("hivemq/config.xml", self.folder / "config.xml",
                  ports | {"0.0.0.0": "127.0.0.1", "conf/tls": self.folder})
        shutil.copytree(self.home / "extensions" / self.extension, extension)
        (extension / "extension-config.xml").write_text(
            "<extension-configuration><password-type>PLAIN</password-type></extension-configuration>")
        self.fill("hivemq/credentials.xml", extension / "credentials.xml", {"PASSWORD-OF-APP": PASSWORDS[APPLICATION]})
        users = (extension / "credentials.xml").read_text()
        begin = users.rindex("<user>", 0, users.index("pump-house-7"))
        end_ = users.index("</user>", begin) + len("</user>")
        both = [users[begin:end_].replace("PASSWORD-OF-PUMP-HOUSE-7", PASSWORDS[user]).replace("pump-house-7", user)
                for user in (GATEWAY, OTHER)]
        (extension / "credentials.xml").write_text(users[:begin] + "".join(both) + users[end_:])

    def run(self):
        folders = {"CONFIG": ".", "DATA": "data", "LOG": "logs", "EXTENSION": "extensions"}
        environment = {f"HIVEMQ_{name}_FOLDER": str(self.folder / folder) for name, folder in folders.items()}
        for folder in folders.values():
            (self.folder / folder).mkdir(exist_ok=True)
        return start([self.home / "bin/run.sh"], self.folder, "log", env=os.environ | environment)


ALL = (Mosquitto, ActiveMQ, RabbitMQ, Aedes, Mosca, HiveMQ)
