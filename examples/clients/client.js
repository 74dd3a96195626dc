#!/usr/bin/env node
// Sees what a gateway says of itself, and switches one of its points on, with mqtt.js (`npm install mqtt`, or node-mqtt):
//
//   client.js pump-house-7 relays/pump       MQTT_HOST, MQTT_PORT, MQTT_USER, MQTT_PASSWORD say where and who
//
// Ends with 0 when the command was done.
const mqtt = require('mqtt')
const { randomUUID } = require('crypto')

const root = `sluicegate/${process.argv[2]}`
const point = `${root}/${process.argv[3]}`
// An id is against acting twice, a ttl against acting late.
const command = { value: true, id: randomUUID(), ttl: '10s' }
const waiting = new Set([`${root}/status`, `${root}/health`, point])
const { MQTT_HOST = 'localhost', MQTT_PORT = 1883, MQTT_USER: username, MQTT_PASSWORD: password } = process.env
const client = mqtt.connect(`mqtt://${MQTT_HOST}:${MQTT_PORT}`, { username, password })

function end (outcome) {
  if (process.exitCode !== undefined) return
  console.log(outcome)
  process.exitCode = outcome.outcome === 'done' ? 0 : 1
  clearInterval(sender)
  clearTimeout(patience)
  client.end()
}

let sender
const patience = setTimeout(() => end('nobody answered'), 35000)
client.on('error', end)
client.once('connect', () => client.subscribe([...waiting, `${point}/outcome`], { qos: 1 }))
client.on('message', (topic, payload) => {
  if (topic === `${point}/outcome`) {
    const outcome = JSON.parse(payload)
    if (outcome.id === command.id && outcome.outcome !== 'rejected') end(outcome)
    return
  }
  // What is retained comes at once: presence, health, and the last reading.
  console.log(topic, payload.toString())
  if (!waiting.delete(topic) || waiting.size > 0) return
  // The same command again, until its outcome is told.
  const send = () => client.publish(`${point}/set`, JSON.stringify(command), { qos: 1 })
  send()
  sender = setInterval(send, 1000)
})
