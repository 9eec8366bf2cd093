// Registers and finds instances in Eureka with eureka-js-client.
//
// peer.js HOST:PORT register NAME PORT   registers 127.0.0.1:PORT until SIGTERM
// peer.js HOST:PORT watch NAME           prints the instances that are up, one line per change
//
// "watch" looks by application, and by VIP address: BY_APPLICATION BY_VIP.
'use strict';

const { Eureka } = require('eureka-js-client');

// The client's own default is 30 s.
const INTERVAL_MS = 1000;

function client(server, name, port, eureka) {
  const [host, serverPort] = server.split(':');
  return new Eureka({
    instance: {
      app: name,
      instanceId: `${name}-127.0.0.1-${port}`,
      hostName: '127.0.0.1',
      ipAddr: '127.0.0.1',
      port: { $: port, '@enabled': true },
      vipAddress: name,
      dataCenterInfo: {
        '@class': 'com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo',
        name: 'MyOwn',
      },
      metadata: { tags: 'a,b' },
    },
    eureka: {
      host,
      port: Number(serverPort),
      servicePath: '/eureka/apps/',
      heartbeatInterval: INTERVAL_MS,
      registryFetchInterval: INTERVAL_MS,
      ...eureka,
    },
    logger: { debug() {}, info() {}, warn: console.error, error: console.error },
  });
}

function register(server, name, port) {
  const eureka = client(server, name, Number(port), { fetchRegistry: false });
  eureka.start(fail);
  eureka.on('registered', () => console.log('registered'));
  process.on('SIGTERM', () => eureka.stop(fail));
}

function watch(server, name) {
  const eureka = client(server, 'watcher', 1, { registerWithEureka: false });
  let last;
  const print = () => {
    const shown = [eureka.getInstancesByAppId(name), eureka.getInstancesByVipAddress(name)].map(show).join(' ');
    if (shown !== last) {
      console.log(shown);
      last = shown;
    }
  };
  eureka.on('registryUpdated', print);
  eureka.start(fail);
}

function show(instances) {
  const one = ({ instanceId, hostName, port, metadata }) => {
    const pairs = Object.entries(metadata || {}).sort().map(([key, value]) => `${key}=${value}`);
    return `${instanceId}=${hostName}:${port.$}=${pairs.join(',')}`;
  };
  return `[${instances.map(one).sort().join(' ')}]`;
}

function fail(error) {
  if (error) {
    console.error(error);
    process.exit(1);
  }
}

const [server, action, name, port] = process.argv.slice(2);
if (action === 'register' && port) {
  register(server, name, port);
} else if (action === 'watch' && name) {
  watch(server, name);
} else {
  console.error('usage: peer.js HOST:PORT register NAME PORT | watch NAME');
  process.exit(2);
}
