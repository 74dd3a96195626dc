'use strict'
// For Aedes: `Object.assign(aedes, require('./aedes.js')(users))`, with the users of rights.js. TLS servers ask for a
// certificate (`requestCert: true, rejectUnauthorized: false`), and whoever has none needs a password.
const rights = require('./rights.js')

module.exports = (users) => ({
  authenticate (client, user, password, done) {
    client.user = rights.login(users, client.conn._socket ?? client.conn, client.id, user, password)
    if (client.user) return done(null, true)
    done(Object.assign(new Error('bad user name or password'), { returnCode: 4 }), false)
  },
  authorizePublish (client, packet, done) {
    done(rights.mayPublish(client?.user, packet.topic) ? null : new Error(`not for ${client?.user}: ${packet.topic}`))
  },
  // Null: answered with a refusal, and the connection goes on.
  authorizeSubscribe (client, subscription, done) {
    done(null, rights.maySubscribe(client?.user, subscription.topic) ? subscription : null)
  }
})
