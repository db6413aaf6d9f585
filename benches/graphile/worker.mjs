// graphile-worker with the settings its performance page recommends for throughput,
// https://worker.graphile.org/docs/performance, and a task that does nothing.
//
// A job with `at` (microseconds since 1970) tells over UDP that it has been handled.
import { createSocket } from "node:dgram";
import { Logger, run, WorkerPreset } from "graphile-worker";

const [host, port] = process.env.BENCH_SINK.split(":");
const socket = createSocket("udp4");
socket.unref();

const runner = await run({
  preset: {
    extends: [WorkerPreset],
    worker: {
      connectionString: process.env.DATABASE_URL,
      concurrentJobs: 24,
      maxPoolSize: 25,
      localQueue: { size: 500 },
      completeJobBatchDelay: 0,
      failJobBatchDelay: 0,
      logger: new Logger(() => () => {}),
    },
  },
  taskList: {
    trivial: async (payload) => {
      if (payload.at) socket.send(String(payload.at), Number(port), host);
    },
  },
});
console.log("ready");
await runner.promise;
