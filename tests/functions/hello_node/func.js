// The function of hello_fdk/func.py, with Fn's Node kit; and "stream", which only this kit can.

const crypto = require('crypto')
const { PassThrough } = require('stream')
const fdk = require('@fnproject/fdk')

const instance = crypto.randomUUID()

fdk.handle(async (body, ctx) => {
  const asked = body || {}
  if (asked.fail) throw new Error(asked.fail)
  if (asked.sleep) await new Promise((resolve) => setTimeout(resolve, 1000 * asked.sleep))
  console.log('greeting', asked.name)
  const http = ctx.httpGateway
  if (http.method) {
    http.statusCode = asked.status || 200
    http.setResponseHeader('X-Greeting', 'hello')
  } else {
    ctx.setResponseHeader('X-Greeting', 'hello')
  }
  if (asked.stream) return begin(asked.stream, ctx)
  return {
    message: `Hello ${asked.name || 'World'}`,
    instance,
    call_id: ctx.callID,
    fn_id: ctx.fnID,
    app_id: ctx.appID,
    deadline: ctx.deadline.toISOString(),
    tier: ctx.config.TENANT_TIER,
    zone: ctx.config.RUNNER_ZONE,
    method: http.method || null,
    url: http.requestURL || null,
    asked_by: http.method ? http.getHeader('X-Asked-By') : ctx.getHeader('X-Asked-By')
  }
})

// A response that begins, and does not end.
function begin (text, ctx) {
  ctx.responseContentType = 'text/plain'
  const stream = new PassThrough()
  stream.write(text)
  return fdk.streamResult(stream)
}
