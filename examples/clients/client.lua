#!/usr/bin/env luajit
-- Sees what a gateway says of itself, and switches one of its points on, from Lua. Debian has no MQTT for Lua; LuaJIT calls
-- mosquitto's library as it is (luajit, libmosquitto1):
--
--   client.lua pump-house-7 relays/pump       MQTT_HOST, MQTT_PORT, MQTT_USER, MQTT_PASSWORD say where and who
--
-- Ends with 0 when the command was done.
local ffi = require("ffi")
ffi.cdef [[
struct mosquitto;
struct mosquitto_message { int mid; char *topic; void *payload; int payloadlen; int qos; bool retain; };
int mosquitto_lib_init(void);
struct mosquitto *mosquitto_new(const char *id, bool clean_session, void *obj);
int mosquitto_username_pw_set(struct mosquitto *m, const char *user, const char *password);
int mosquitto_connect(struct mosquitto *m, const char *host, int port, int keepalive);
int mosquitto_disconnect(struct mosquitto *m);
int mosquitto_loop(struct mosquitto *m, int timeout, int max_packets);
int mosquitto_subscribe(struct mosquitto *m, int *mid, const char *filter, int qos);
int mosquitto_publish(struct mosquitto *m, int *mid, const char *topic, int length, const void *payload, int qos, bool retain);
void mosquitto_connect_callback_set(struct mosquitto *m, void (*f)(struct mosquitto *, void *, int));
void mosquitto_message_callback_set(struct mosquitto *m, void (*f)(struct mosquitto *, void *, const struct mosquitto_message *));
]]
local mosquitto = ffi.load("libmosquitto.so.1")
-- A function that calls back must not be compiled.
jit.off()

local root = "sluicegate/" .. arg[1]
local point = root .. "/" .. arg[2]
local waiting, outcome = { [root .. "/status"] = true, [root .. "/health"] = true, [point] = true }, nil

-- An id is against acting twice, a ttl against acting late.
local id = io.open("/proc/sys/kernel/random/uuid"):read("*l")
local command = ('{"value":true,"id":"%s","ttl":"10s"}'):format(id)

mosquitto.mosquitto_lib_init()
local client = mosquitto.mosquitto_new(nil, true, nil)
if os.getenv("MQTT_USER") then
  mosquitto.mosquitto_username_pw_set(client, os.getenv("MQTT_USER"), os.getenv("MQTT_PASSWORD"))
end
mosquitto.mosquitto_connect_callback_set(client, function(_, _, code)
  assert(code == 0, "the broker does not let me in")
  for topic in pairs(waiting) do mosquitto.mosquitto_subscribe(client, nil, topic, 1) end
  mosquitto.mosquitto_subscribe(client, nil, point .. "/outcome", 1)
end)
mosquitto.mosquitto_message_callback_set(client, function(_, _, message)
  local topic, text = ffi.string(message.topic), ffi.string(message.payload, message.payloadlen)
  print(topic, text)
  waiting[topic] = nil
  if topic == point .. "/outcome" and text:find(id, 1, true) and not text:find('"outcome":"rejected"', 1, true) then
    outcome = text
  end
end)
assert(mosquitto.mosquitto_connect(client, os.getenv("MQTT_HOST") or "localhost", tonumber(os.getenv("MQTT_PORT") or 1883), 30) == 0)

-- What is retained comes at once. Then the same command again, each second, until its outcome is told.
local patience, last = os.time() + 35, 0
while not outcome and os.time() < patience do
  assert(mosquitto.mosquitto_loop(client, 200, 1) == 0, "the connection is lost")
  if next(waiting) == nil and os.time() > last then
    last = os.time()
    mosquitto.mosquitto_publish(client, nil, point .. "/set", #command, command, 1, false)
  end
end
mosquitto.mosquitto_disconnect(client)
print(outcome or "nobody answered")
os.exit(outcome and outcome:find('"outcome":"done"', 1, true) and 0 or 1)
