// Preloaded into the emulators, which would listen on every interface: keeps them on the loopback address.
const net = require('net');

const listen = net.Server.prototype.listen;

net.Server.prototype.listen = function (...args) {
  const callback = args.find((argument) => typeof argument === 'function');
  const options = typeof args[0] === 'object' && args[0] !== null ? args[0] : { port: Number(args[0]) };
  return listen.call(this, { ...options, host: '127.0.0.1' }, callback);
};
