'use strict'
// Rights of least privilege for brokers in JavaScript: who may log in, publish what, and subscribe to what. aedes.js and
// mosca.js here give them to Aedes and to Mosca. A gateway's user name is its id, and so is the common name of its
// certificate; its connections are called like it, so that nobody ends another one's by taking its name.
//
// Users stand in a file of JSON: {"pump-house-7": "<salt>:<hash>"}. A line for it:
//
//     node -p 'require("./rights.js").hash("the password")'
const { randomBytes, scryptSync, timingSafeEqual } = require('node:crypto')

// Who reads all gateways and commands them; everybody else is a gateway.
const APPLICATIONS = ['app']

const isName = (word) => /^[A-Za-z0-9_-]{1,64}$/.test(word)

exports.hash = (password, salt = randomBytes(8).toString('hex')) =>
  `${salt}:${scryptSync(password, salt, 32).toString('hex')}`

// The user behind a connection, or undefined: by the common name of its verified certificate, else by password.
exports.login = (users, socket, clientId, user, password) => {
  const name = (socket?.authorized && socket.getPeerCertificate().subject?.CN) || user
  if (!isName(name || '') || !Object.hasOwn(users, name)) return undefined
  if (!APPLICATIONS.includes(name) && clientId !== name && clientId !== `${name}-check`) return undefined
  if (socket?.authorized) return name
  const known = Buffer.from(users[name])
  const given = Buffer.from(exports.hash(String(password), users[name].split(':')[0]))
  return known.length === given.length && timingSafeEqual(known, given) ? name : undefined
}

exports.mayPublish = (user, topic) => {
  const [root, gateway, ...below] = topic.split('/')
  if (!user || root !== 'sluicegate') return false
  if (APPLICATIONS.includes(user)) return (below.length === 2 || below.length === 3) && below.at(-1) === 'set'
  return gateway === user && below.length > 0
}

exports.maySubscribe = (user, filter) => {
  if (!user) return false
  if (APPLICATIONS.includes(user)) return filter.startsWith('sluicegate/')
  return ['+/set', '+/+/set', 'status', 'info'].some((own) => filter === `sluicegate/${user}/${own}`)
}
