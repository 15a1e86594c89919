// Scans one host with Mozilla's HTTP Observatory and prints what it found as JSON.
//
//   node scan.mjs FOLDER HOST [ADDRESS HTTP_PORT HTTPS_PORT]
//
// FOLDER has the node_modules. The scanner knows public names and the ports 80 and 443 only; with an ADDRESS, its
// connections to them go there instead, as `curl --connect-to` does it. What it sends and checks stays the same.
import net from "node:net";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";

const [folder, host, address, httpPort, httpsPort] = process.argv.slice(2);

if (address) {
  const ports = { 80: Number(httpPort), 443: Number(httpsPort) };
  const connect = net.Socket.prototype.connect;
  net.Socket.prototype.connect = function (...args) {
    // net.connect() hands its arguments over as one list, [options, callback].
    const options = Array.isArray(args[0]) ? args[0][0] : args[0];
    if (options.host === host && options.port in ports) {
      Object.assign(options, { host: address, port: ports[options.port] });
      return connect.apply(this, args);
    }
    throw new Error(`expected connections to ${host} only, got one to ${options.host}:${options.port}`);
  };
}

const main = join(resolve(folder), "node_modules/@mdn/mdn-http-observatory/src/index.js");
const { scan } = await import(pathToFileURL(main).href);
const result = await scan(host);
for (const test of Object.values(result.tests)) {
  delete test.scoreDescription; // HTML for its web page
}
process.stdout.write(`${JSON.stringify(result, null, 2)}\n`);
