// express with connect-redis, as in the README of connect-redis.
import { RedisStore } from 'connect-redis'
import express from 'express'
import session from 'express-session'
import { createClient } from 'redis'

const { PORT, REDIS_URL, PAYLOAD } = process.env

const client = createClient({ url: REDIS_URL })
await client.connect()

const app = express()
app.use(session({
  store: new RedisStore({ client }),
  resave: false,
  saveUninitialized: false,
  secret: 'not a secret: it signs the cookies of a benchmark',
}))
app.get('/plain', (request, response) => response.send('1'))
app.get('/start', (request, response) => {
  Object.assign(request.session, JSON.parse(PAYLOAD))
  response.send(String(request.session.count))
})
app.get('/count', (request, response) => {
  request.session.count += 1
  response.send(String(request.session.count))
})
app.get('/value', (request, response) => response.send(String(request.session.count)))
app.listen(PORT, '127.0.0.1')

process.stdin.on('end', () => process.exit(0)).resume()
