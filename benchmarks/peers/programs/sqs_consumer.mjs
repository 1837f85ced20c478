// Drives sqs-consumer: `sqs_consumer.mjs URL`. Prints how many messages it has had on each SIGUSR1.
//
// Ten consumers that take whole batches of ten: its documentation's way to more throughput.
import { SQSClient } from '@aws-sdk/client-sqs';
import { Consumer } from 'sqs-consumer';

const CONSUMERS = 10;
const url = process.argv[2];
let records = 0;
let batches = 0;

const sqs = new SQSClient({ region: 'eu-west-1', endpoint: url });
for (let number = 0; number < CONSUMERS; number += 1) {
  const consumer = Consumer.create({
    queueUrl: `${url}/111122223333/orders`,
    sqs,
    batchSize: 10,
    waitTimeSeconds: 20,
    messageAttributeNames: ['All'],
    messageSystemAttributeNames: ['All'],
    handleMessageBatch: async (messages) => {
      records += messages.length;
      batches += 1;
      return messages;
    },
  });
  for (const name of ['error', 'processing_error', 'timeout_error']) {
    consumer.on(name, (error) => console.error(error.message));
  }
  consumer.start();
}
process.on('SIGUSR1', () => console.log(JSON.stringify([records, batches])));
process.on('SIGTERM', () => process.exit(0));
console.log('ready');
