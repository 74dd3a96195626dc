"""The one list of checks. Each gets a site, and returns what the broker's cell says: `yes`, or more where more is so."""
import contextlib
import json
import subprocess
import uuid

from parts import APPLICATION, GATEWAY, OTHER, ROOT, Agent, Client, Fault, Tank, until

TREE = f"sluicegate/{GATEWAY}"
OWN = ("status", "info", "health", "problem", "tank/status", "tank/problem", "tank/level")


class Site:
    """A broker that runs, the application that listens at it, and a tank for each agent."""

    def __init__(self, broker, program, folder, count=0):
        self.broker, self.program, self.folder = broker, program, folder
        self.heard, self.count = [], count
        self.observe()

    def observe(self):
        """The application listens, from now on."""
        self.observer = Client(self.broker.ports["mqtt"], APPLICATION, heard=self.heard)
        if not self.observer.subscribe(f"{TREE}/#", f"sluicegate/{OTHER}/#"):
            raise Fault("the application may not read")

    def agent(self, scheme="mqtt", **how):
        """One that does not run yet, and its tank."""
        self.count += 1
        tank = Tank()
        return Agent(self.program, self.folder / f"agent-{self.count}", tank, self.broker.url(scheme), **how), tank

    @contextlib.contextmanager
    def running(self, scheme="mqtt", **how):
        """An agent that is online, with its tank; stopped in order at the end, unless it was killed."""
        agent, tank = self.agent(scheme, **how)
        since = len(self.heard)
        agent.start()
        try:
            self.online(since)
            yield agent, tank
            if agent.child.poll() is None:
                since = len(self.heard)
                agent.stop()
                self.wait("status", lambda word: word == "offline", since)
        finally:
            if agent.child.poll() is None:
                agent.kill()

    def online(self, since):
        for topic in ("status", "tank/status"):
            self.wait(topic, lambda word: word == "online", since)
        self.wait("info", lambda info: info and "tank" in info["devices"], since)

    def wait(self, topic, wanted, since=0):
        return self.observer.wait(f"{TREE}/{topic}", wanted, since)

    def level(self, tank, level):
        """A reading goes from the sensor to the application."""
        since = len(self.heard)
        tank.say(level)
        self.wait("tank/level", lambda reading: reading["value"] == level and "seq" in reading, since)

    def command(self, tank, value):
        """The application sets the valve, and hears of it."""
        since, command = len(self.heard), {"value": value, "id": str(uuid.uuid4()), "ttl": "30s"}
        self.observer.publish(f"{TREE}/tank/valve/set", command)
        outcome = self.wait("tank/valve/outcome", lambda outcome: outcome["id"] == command["id"], since)
        outcome = json.loads(outcome["payload"])
        if outcome["outcome"] != "done" or tank.told.count(f"VALVE {value}") != 1:
            raise Fault(f"the valve was told {tank.told}, and the outcome of {command} is {outcome}")

    def exchange(self, scheme, **how):
        """An agent by this way does what it is for."""
        with self.running(scheme, **how) as (_, tank):
            self.level(tank, 11)
            self.command(tank, 42)

    def refused(self, scheme, words, **how):
        """`check --broker` is refused, and says so in one of these words."""
        agent, _ = self.agent(scheme, **how)
        status, printed = agent.ask("check", "--broker")
        if status != 69 or not any(word in printed for word in words):
            raise Fault(f"expected a refusal with one of {words}, not exit status {status} with:\n{printed}")


def speaks_3(site):
    return speaks(site, "3.1.1")


def speaks_5(site):
    return speaks(site, "5")


def speaks(site, version):
    since = len(site.heard)
    with site.running(version=version) as (agent, tank):
        site.level(tank, 7)
        for topic in OWN:
            site.wait(topic, lambda payload: payload != "", since)
        status, printed = agent.ask("check", "--broker")
        if status != 0:
            raise Fault(f"check --broker ended with {status}:\n{printed}")
    return "yes"


def own_authority(site):
    ca = site.folder / "ca.pem"
    site.exchange("mqtts", ca=ca, **site.broker.tls_login)
    site.refused("mqtts", ["certificate"], ca=site.folder / "foreign.pem", **site.broker.tls_login)
    return "yes"


def client_certificate(site):
    ca = site.folder / "ca.pem"
    site.exchange("certificate", ca=ca, cert=GATEWAY, password=None)
    for cert in (None, OTHER):
        site.refused("certificate", ["failed"], ca=ca, cert=cert, password=None)
    return "yes"


def password(site):
    site.exchange("mqtt")
    site.refused("mqtt", ["user name", "not authorized"], password="wrong")
    return "yes"


def websocket(site):
    site.exchange("ws")
    return "yes"


def websocket_tls(site):
    site.exchange("wss", ca=site.folder / "ca.pem")
    return "yes"


def last_will(site):
    """Killed, it is said to be offline; started again, it tells that it may have lost something, in a gap."""
    with site.running() as (agent, tank):
        site.level(tank, 5)
        since = len(site.heard)
        agent.kill()
        site.wait("status", lambda word: word == "offline", since)
        since = len(site.heard)
        agent.start()
        site.online(since)
        site.wait("gap", lambda gap: gap["cause"] == "stop", since)
    return "yes"


def presence(site):
    """Who comes later learns at once whether the gateway is there."""
    with site.running():
        found = found_retained(site, "online")
    if found != found_retained(site, "offline"):
        raise Fault("presence is retained only sometimes")
    return found


def found_retained(site, word):
    """By which filter a later subscriber gets the presence."""
    cells = {"exact": f"{TREE}/status", "wildcard": "sluicegate/+/status"}
    got = []
    for name, filter in cells.items():
        later = Client(site.broker.ports["mqtt"], APPLICATION, name=f"app-later-{uuid.uuid4().hex[:8]}")
        later.subscribe(filter)
        # What is sent afterwards comes after what was retained.
        marker = f"sluicegate/{OTHER}/mark/{later.name}/set"
        later.subscribe(marker)
        later.publish(marker, "now")
        later.wait(marker)
        for message in later.heard:
            if message["topic"] == f"{TREE}/status":
                if message["payload"] != word or not message["retain"]:
                    raise Fault(f"a later subscriber got {message}")
                got.append(name)
        later.close()
    if "exact" not in got:
        raise Fault(f"a later subscriber was not told that the gateway is {word}")
    return "yes" if "wildcard" in got else "only by its whole topic: wildcards bring nothing that is retained"


def restart(site):
    """Readings while the broker is away: each arrives, by its number."""
    before, away = range(1, 51), range(51, 251)
    start = len(site.heard)
    with site.running() as (agent, tank):
        for level in before:
            tank.say(level)
        site.wait("tank/level", lambda reading: reading["value"] == before[-1], start)
        site.broker.stop()
        for level in away:
            tank.say(level)
        until("the readings to wait", lambda: agent.waiting() >= len(away))
        # Held still until the application listens again, so that it can't miss any.
        agent.signal("STOP")
        site.broker.start()
        site.observe()
        agent.signal("CONT")
        site.wait("tank/level", lambda reading: reading["value"] == away[-1] and "seq" in reading, start)
    audit = site.folder / f"{agent.folder.name}.heard"
    audit.write_text("".join(json.dumps(message) + "\n" for message in site.heard[start:]))
    judged = subprocess.run([ROOT / "tests/audit", "--counter", "tank/level", "--from", "1", "--to", str(away[-1]), audit],
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if judged.returncode != 0:
        raise Fault(f"tests/audit ended with {judged.returncode}:\n{judged.stdout}")
    return f"yes: {before[-1] + len(away)} of {away[-1]} readings"


def command(site):
    with site.running() as (_, tank):
        site.command(tank, 40)
        # A second one of the same id does not act, and is answered.
        twice = {"value": 41, "id": str(uuid.uuid4())}
        for _ in range(2):
            since = len(site.heard)
            site.observer.publish(f"{TREE}/tank/set", {"values": {"valve": 41}, "id": twice["id"]})
            site.wait("tank/outcome", lambda outcome: outcome["id"] == twice["id"] and outcome["outcome"] == "done", since)
        if tank.told != ["VALVE 40", "VALVE 41"]:
            raise Fault(f"the valve was told {tank.told}")
    return "yes"


def retained_command(site):
    """What the broker had stored never acts."""
    topic, stored = f"{TREE}/tank/valve/set", {"value": 66, "id": str(uuid.uuid4())}
    since = len(site.heard)
    site.observer.publish(topic, stored, retain=True)
    with site.running() as (_, tank):
        # What is sent now comes after what was stored.
        site.command(tank, 67)
        if tank.told != ["VALVE 67"]:
            raise Fault(f"the valve was told {tank.told}")
        told = [json.loads(message["payload"]) for message in site.heard[since:]
                if message["topic"] == f"{TREE}/tank/valve/outcome" and stored["id"] in message["payload"]]
        site.observer.publish(topic, "", retain=True)
    if not told:
        return "never delivered"
    if [(outcome["outcome"], outcome["reason"]) for outcome in told] != [("rejected", "retained")]:
        raise Fault(f"the outcome of a retained command is {told}")
    return "yes"


def rights(site):
    """A second gateway's credentials neither read nor write the first one's topics; an application writes commands only."""
    with site.running() as (_, tank):
        for filter in (f"{TREE}/#", "sluicegate/#", "#", f"{TREE}/status", "sluicegate/+/status", f"{TREE}/tank/+",
                       f"{TREE}/+/set"):
            nothing_comes(site, tank, filter)
        since = len(site.heard)
        forbidden = (("tank/valve/set", "99"), ("tank/level", '{"value":99,"by":"intruder"}'), ("status", "intruder"),
                     ("info", '{"by":"intruder"}'), ("gap", '{"by":"intruder"}'))
        for topic, payload in forbidden:
            nothing_goes(site, OTHER, f"{TREE}/{topic}", payload)
        for topic, payload in forbidden[1:]:
            nothing_goes(site, APPLICATION, f"{TREE}/{topic}", payload)
        nothing_wills(site)
        # All that was sent before has come by now.
        site.command(tank, 12)
        wrong = [message for message in site.heard[since:] if "intruder" in message["payload"]]
        if wrong or tank.told != ["VALVE 12"]:
            raise Fault(f"an intruder was heard: {wrong}, the valve was told {tank.told}")
    return "yes"


def nothing_comes(site, tank, filter):
    """The second gateway gets nothing of the first one by this filter, while that publishes and is commanded."""
    spy = Client(site.broker.ports["mqtt"], OTHER)
    mark = f"sluicegate/{OTHER}/mark/set"
    listens = spy.subscribe(f"sluicegate/{OTHER}/+/set") and (spy.subscribe(filter) or not spy.closed.is_set())
    site.level(tank, 1000 + len(site.heard))
    site.observer.publish(f"{TREE}/nobody/set", "1")
    if listens:
        site.observer.publish(mark, "now")
        until("the mark to come, or the broker to hang up",
              lambda: any(message["topic"] == mark for message in spy.heard) or spy.closed.is_set())
    spy.close()
    if wrong := [message for message in spy.heard if message["topic"].startswith(f"{TREE}/")]:
        raise Fault(f"{OTHER} subscribed to {filter} and got {wrong[:3]}")


def nothing_goes(site, user, topic, payload):
    """Publishes what must not come, and waits until the broker acknowledged it or hung up."""
    intruder = Client(site.broker.ports["mqtt"], user, name=None if user == OTHER else "app-writes")
    intruder.publish(topic, payload)
    intruder.close()


def nothing_wills(site):
    """Nor by a Last Will, which some brokers refuse with the connection itself."""
    since = len(site.heard)
    for topic, payload in ((f"{TREE}/status", "intruder"), (f"sluicegate/{OTHER}/status", "its own")):
        Client(site.broker.ports["mqtt"], OTHER, will=(topic, payload)).drop()
    site.observer.wait(f"sluicegate/{OTHER}/status", lambda word: word == "its own", since)


def cell(site, name, check):
    """What the check finds; where the broker is said to lack what it is about, that it does."""
    if name not in site.broker.lacks:
        return check(site)
    why, shown = site.broker.lacks[name]
    shown(site)
    return f"no: {why}"


CHECKS = (
    ("MQTT 3.1.1", speaks_3),
    ("MQTT 5", speaks_5),
    ("TLS with an authority of one's own", own_authority),
    ("client certificate", client_certificate),
    ("password", password),
    ("WebSocket", websocket),
    ("WebSocket over TLS", websocket_tls),
    ("Last Will after `kill -9`", last_will),
    ("presence for who comes later", presence),
    ("a command with its outcome", command),
    ("retained commands refused", retained_command),
    ("rights of least privilege", rights),
    ("readings over a restart of the broker", restart),
)
