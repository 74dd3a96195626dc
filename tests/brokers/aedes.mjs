// Aedes with the rights of config/brokers/javascript: node aedes.mjs SITE, a file of JSON with its ports, files and users.
import fs from 'node:fs'
import { createRequire } from 'node:module'
import { pathToFileURL } from 'node:url'

const site = JSON.parse(fs.readFileSync(process.argv[2]))
const tools = createRequire(`${site.tools}/`)
const { Aedes } = await import(pathToFileURL(tools.resolve('aedes')))
const { createServer } = tools('aedes-server-factory')

const broker = await Aedes.createBroker()
Object.assign(broker, createRequire(import.meta.url)(`${site.rights}/aedes.js`)(site.users))
for (const event of ['clientError', 'connectionError']) {
  broker.on(event, (client, error) => console.error(event, client?.id, error.message))
}
const [ca, cert, key] = [site.ca, site.cert, site.key].map((file) => fs.readFileSync(file))
const tls = { ca, cert, key, requestCert: true, rejectUnauthorized: false }
const servers = { mqtt: {}, mqtts: { tls }, ws: { ws: true }, wss: { ws: true, https: tls } }
for (const [scheme, options] of Object.entries(servers)) {
  createServer(broker, options).listen(site.ports[scheme], '127.0.0.1')
}
process.on('SIGTERM', () => broker.close(() => process.exit()))
