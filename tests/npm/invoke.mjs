// Calls functions with AWS's SDK for JavaScript: the URL is the argument, a list of inputs of Invoke is standard input.
//
// Prints a list: each answer with its payload and log as text, or the error's name, status and reason.
import { readFileSync } from 'node:fs';
import { InvokeCommand, LambdaClient } from '@aws-sdk/client-lambda';

const client = new LambdaClient({ endpoint: process.argv[2], region: 'eu-west-1', maxAttempts: 1 });
const text = (bytes) => (bytes == null ? null : Buffer.from(bytes).toString('utf8'));

async function called(input) {
  try {
    const answer = await client.send(new InvokeCommand(input));
    return {
      status: answer.StatusCode,
      version: answer.ExecutedVersion ?? null,
      error: answer.FunctionError ?? null,
      payload: text(answer.Payload),
      log: answer.LogResult === undefined ? null : Buffer.from(answer.LogResult, 'base64').toString('utf8'),
      request: answer.$metadata.requestId,
    };
  } catch (error) {
    return { name: error.name, status: error.$metadata?.httpStatusCode ?? null, reason: error.Reason ?? null };
  }
}

const answers = [];
for (const input of JSON.parse(readFileSync(0, 'utf8'))) answers.push(await called(input));
process.stdout.write(JSON.stringify(answers));
