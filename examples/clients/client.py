#!/usr/bin/python3
"""Sees what a gateway says of itself, and switches one of its points on, with Paho for Python (python3-paho-mqtt):

    client.py pump-house-7 relays/pump       MQTT_HOST, MQTT_PORT, MQTT_USER, MQTT_PASSWORD say where and who

Ends with 0 when the command was done.
"""
import json, os, queue, sys, uuid
import paho.mqtt.client as mqtt

root, point = f"sluicegate/{sys.argv[1]}", f"sluicegate/{sys.argv[1]}/{sys.argv[2]}"
# An id is against acting twice, a ttl against acting late.
command = {"value": True, "id": str(uuid.uuid4()), "ttl": "10s"}
heard = queue.Queue()

arguments = [mqtt.CallbackAPIVersion.VERSION1] if hasattr(mqtt, "CallbackAPIVersion") else []
client = mqtt.Client(*arguments)
if "MQTT_USER" in os.environ:
    client.username_pw_set(os.environ["MQTT_USER"], os.environ.get("MQTT_PASSWORD"))
topics = (f"{root}/status", f"{root}/health", point, f"{point}/outcome")
client.on_connect = lambda *_: client.subscribe([(topic, 1) for topic in topics])
client.on_message = lambda _, __, message: heard.put((message.topic, message.payload.decode()))
client.connect(os.environ.get("MQTT_HOST", "localhost"), int(os.environ.get("MQTT_PORT", "1883")))
client.loop_start()

# What is retained comes at once: presence, health, and the last reading.
waiting, outcome = set(topics[:3]), None
try:
    while waiting:
        topic, text = heard.get(timeout=20)
        print(topic, text)
        waiting.discard(topic)
    # The same command again, until its outcome is told.
    for attempt in range(15):
        client.publish(f"{point}/set", json.dumps(command), qos=1)
        while outcome is None:
            try:
                topic, text = heard.get(timeout=1)
            except queue.Empty:
                break
            answer = json.loads(text) if topic.endswith("/outcome") else {}
            if answer.get("id") == command["id"] and answer["outcome"] != "rejected":
                outcome = answer
        if outcome:
            break
except queue.Empty:
    print("nothing came of", *waiting)
print(outcome or "nobody answered")
sys.exit(not outcome or outcome["outcome"] != "done")
