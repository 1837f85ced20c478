// Drives lifion-kinesis: `lifion_kinesis.mjs URL TABLES`, with the URL of a DynamoDB for its state. Prints how many records it has had on
// each SIGUSR1.
//
// As its documentation says for polling; with the shortest wait between reads that Kinesis allows.
import Kinesis from 'lifion-kinesis';

const [url, tables] = process.argv.slice(2);
let records = 0;
let batches = 0;

const kinesis = new Kinesis({
  streamName: 'orders',
  endpoint: url,
  region: 'eu-west-1',
  dynamoDb: { endpoint: tables, region: 'eu-west-1' },
  createStreamIfNeeded: false,
  initialPositionInStream: 'TRIM_HORIZON',
  leaseAcquisitionInterval: 1000,
  pollDelay: 200,
  shouldDeaggregate: false,
  logger: { debug() {}, warn: console.error, error: console.error },
});
kinesis.on('data', (page) => {
  records += page.records.length;
  batches += 1;
});
kinesis.on('error', (error) => console.error(error));
process.on('SIGUSR1', () => console.log(JSON.stringify([records, batches])));
process.on('SIGTERM', () => process.exit(0));
console.log('ready');
kinesis.startConsumer();
