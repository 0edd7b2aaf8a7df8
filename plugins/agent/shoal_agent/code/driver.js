// The program that a sandbox's own node runs for a code context: a REPL's semantics without its terminal.
// Code comes in over a socket as length-prefixed JSON; output goes to descriptors 1 and 2.
'use strict';
(function (fd) {
  const net = require('net'), repl = require('repl'), stream = require('stream'), util = require('util'), vm = require('vm');
  const socket = new net.Socket({ fd, readable: true, writable: true });
  const nothing = new stream.Writable({ write(chunk, encoding, done) { done(); } });
  const server = repl.start({ prompt: '', input: new stream.PassThrough(), output: nothing, terminal: false,
    useGlobal: true, preview: false });
  server.removeAllListeners('exit');
  let count = 0, current = null;

  function send(message) {
    const body = Buffer.from(JSON.stringify(message)), head = Buffer.alloc(4);
    head.writeUInt32BE(body.length);
    socket.write(Buffer.concat([head, body]));
  }

  function describe(error) {
    if (error && error.code === 'ERR_SCRIPT_EXECUTION_INTERRUPTED') return interrupted();
    if (!util.types.isNativeError(error) && !(error instanceof Error)) {
      return { ename: 'Uncaught', evalue: text(error), traceback: ['Uncaught ' + text(error)] };
    }
    return { ename: String(error.name), evalue: String(error.message), traceback: stack(error) };
  }

  function stack(error) {
    const lines = String(error.stack || error).split('\n');
    const end = lines.findIndex((line) => /^ +at .*(node:|\[eval\]|REPLServer|\(?vm\.js|\(?repl\.js|\(?domain\.js)/.test(line));
    return end < 0 ? lines : lines.slice(0, end);
  }

  function interrupted() {
    return { ename: 'KeyboardInterrupt', evalue: 'the run was interrupted', traceback: ['KeyboardInterrupt'] };
  }

  function text(value) {
    try { return util.inspect(value); } catch (error) { return '<' + typeof value + ' that cannot be shown>'; }
  }

  function finish(run, error, value) {
    if (current !== run) return;
    current = null;
    if (!error && value !== undefined) {
      send({ type: 'result', count: run.count, data: { 'text/plain': text(value) } });
    }
    send({ type: 'done', error: error ? error.description : null });
  }

  function execute(code) {
    const run = { count: ++count }, name = 'cell' + run.count;
    current = run;
    const script = compiled(code, name);
    if (script === null) return evaluate(run, code, name);
    let value;
    try {
      value = script.runInThisContext({ breakOnSigint: true, displayErrors: false });
    } catch (error) {
      return finish(run, { description: describe(error) });
    }
    finish(run, null, value);
  }

  // A script, which an interrupt can end; null for code that is none, such as an `await` at top level.
  function compiled(code, name) {
    const loader = vm.constants && vm.constants.USE_MAIN_CONTEXT_DEFAULT_LOADER;
    const options = loader ? { filename: name, importModuleDynamically: loader } : { filename: name };
    if (awaits(code) || !loader && /\bimport\s*\(/.test(code)) return null;  // An older vm imports nothing by itself.
    for (const text of /^\s*\{/.test(code) && !/;\s*$/.test(code) ? ['(' + code.trim() + ')', code] : [code]) {
      try { return new vm.Script(text, options); } catch (error) { /* The REPL tells what is wrong. */ }
    }
    return null;
  }

  // Whether there is an `await` at top level: a static block is where the word can be nothing else, not even a name.
  function awaits(code) {
    if (!/\bawait\b/.test(code)) return false;
    try { new vm.Script('(class { static {' + code + '\n} })'); } catch (error) { return true; }
    return false;
  }

  function evaluate(run, code, name) {
    server.eval(code + '\n', server.context, name, (error, value) => {
      if (error instanceof repl.Recoverable) error = error.err;
      finish(run, error === null || error === undefined ? null : { description: describe(error) }, value);
    });
  }

  // What the code throws: older versions of node send it to the REPL's domain, newer ones to its handler of errors.
  function thrown(error) {
    if (current) finish(current, { description: describe(error) });
    else process.stderr.write('Uncaught ' + text(error) + '\n');
  }
  if (server._domain) { server._domain.removeAllListeners('error'); server._domain.on('error', thrown); }
  if (server._handleError) server._handleError = (error) => { thrown(error); return 'ignore'; };
  process.on('uncaughtException', thrown);
  process.removeAllListeners('warning');
  process.on('warning', (warning) => {  // The ones about experiments are ours: the loader of modules, and the REPL.
    if (warning.name !== 'ExperimentalWarning') process.stderr.write(warning.name + ': ' + warning.message + '\n');
  });
  process.on('SIGINT', () => { if (current) finish(current, { description: interrupted() }); });
  process.on('unhandledRejection', (reason) => { process.stderr.write('Uncaught (in promise) ' + text(reason) + '\n'); });
  let buffered = Buffer.alloc(0);
  socket.on('data', (chunk) => {
    buffered = Buffer.concat([buffered, chunk]);
    while (buffered.length >= 4 && buffered.length >= 4 + buffered.readUInt32BE(0)) {
      const size = buffered.readUInt32BE(0), body = buffered.slice(4, 4 + size);
      buffered = buffered.slice(4 + size);
      execute(JSON.parse(body.toString()).code);
    }
  });
  socket.on('close', () => process.exit(0));
  send({ type: 'ready' });
})(Number(process.argv[1]));
