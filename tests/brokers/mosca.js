// Mosca with the rights of config/brokers/javascript: node mosca.js SITE, a file of JSON with its ports, files and users.
'use strict'
const fs = require('node:fs')
const { createRequire } = require('node:module')

const site = JSON.parse(fs.readFileSync(process.argv[2]))
const mosca = createRequire(`${site.tools}/`)('mosca')
const credentials =
  { caPaths: [site.ca], certPath: site.cert, keyPath: site.key, requestCert: true, rejectUnauthorized: false }
const types = { mqtt: {}, mqtts: { credentials }, ws: {}, wss: { credentials } }
const names = { mqtt: 'mqtt', mqtts: 'mqtts', ws: 'http', wss: 'https' }
const interfaces = Object.entries(types).map(([scheme, options]) =>
  ({ type: names[scheme], host: '127.0.0.1', port: site.ports[scheme], ...options }))

const broker = new mosca.Server({ interfaces, persistence: { factory: mosca.persistence.Memory }, logger: { level: 'info' } })
require(`${site.rights}/mosca.js`)(broker, site.users)
process.on('SIGTERM', () => broker.close(() => process.exit()))
