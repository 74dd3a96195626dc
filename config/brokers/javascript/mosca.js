'use strict'
// For Mosca: `require('./mosca.js')(server, users)` as soon as there is a server, with the users of rights.js. TLS servers
// ask for a certificate (`requestCert: true, rejectUnauthorized: false`), and whoever has none needs a password.
const rights = require('./rights.js')

module.exports = (server, users) => {
  server.authenticate = (client, user, password, done) => {
    const { stream } = client.connection
    client.user = rights.login(users, stream.socket?._socket ?? stream, client.id, user, password)
    done(null, client.user !== undefined)
  }
  server.authorizePublish = (client, topic, payload, done) => done(null, rights.mayPublish(client.user, topic))
  server.authorizeSubscribe = (client, filter, done) => done(null, rights.maySubscribe(client.user, filter))

  // Mosca 2.8 delivers what it retained as if it had just been sent (against MQTT 3.1.1, 3.3.1-8), and late. A gateway would
  // act on a stored command, and take its own run before for another gateway. So it is kept here instead; after a restart of
  // the broker, gateways tell theirs again.
  const kept = new Map()
  server.on('published', ({ topic, payload, retain }) => {
    if (retain && payload.length > 0) kept.set(topic, payload)
    else if (retain) kept.delete(topic)
  })
  const fits = (filter, topic) => {
    const levels = topic.split('/')
    const wanted = filter.split('/')
    const open = wanted.at(-1) === '#'
    if (open) wanted.pop()
    return (open ? levels.length >= wanted.length : levels.length === wanted.length) &&
      wanted.every((level, at) => level === '+' || level === levels[at])
  }
  server.once('ready', () => {
    server.forwardRetained = (filter, client) => kept.forEach((payload, topic) => {
      if (fits(filter, topic)) client.connection.publish({ topic, payload, qos: 0, retain: true })
    })
  })
}
