// The npm package `@ai-sdk/openai-compatible`, under `ai`.

import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, jsonSchema, Output, streamText, tool } from "ai";
import {
  GUARDED_URL, KEY, LONG, MODEL, QUESTION, raised, run, SCHEMA, TOOL_DESCRIPTION, TOOL_NAME, TOOL_PARAMETERS, URL,
} from "./cases.mjs";

const connect = (url = URL, apiKey = "none", model = MODEL) =>
  createOpenAICompatible({
    name: "herd", baseURL: `${url}/v1`, apiKey, includeUsage: true, supportsStructuredOutputs: true,
  }).chatModel(model);
const asked = { model: connect(), prompt: QUESTION, temperature: 0, maxRetries: 0 };
const tools = {
  [TOOL_NAME]: tool({ description: TOOL_DESCRIPTION, inputSchema: jsonSchema(TOOL_PARAMETERS) }),
};

await run({
  async chat() {
    return (await generateText(asked)).text;
  },

  async stream() {
    const answer = streamText(asked);
    const texts = [];
    for await (const text of answer.textStream) texts.push(text);
    return { text: texts.join(""), pieces: texts.length, tokens: (await answer.usage).outputTokens };
  },

  async tools() {
    const toolChoice = { type: "tool", toolName: TOOL_NAME };
    const first = await generateText({ ...asked, tools, toolChoice, maxOutputTokens: 100 });
    const [call] = first.toolCalls;
    // Every call must have its result, and a model may make several.
    const results = first.toolCalls.map(({ toolCallId, toolName }) => ({
      type: "tool-result", toolCallId, toolName, output: { type: "text", value: "sunny" },
    }));
    const { prompt, ...rest } = asked;
    const after = await generateText({
      ...rest,
      messages: [
        { role: "user", content: prompt }, ...first.response.messages, { role: "tool", content: results },
      ],
      tools, toolChoice: "none", maxOutputTokens: 100,
    });
    return { name: call.toolName, arguments: call.input, after: after.text };
  },

  async streamed_tools() {
    const answer = streamText({ ...asked, tools, toolChoice: "required", maxOutputTokens: 100 });
    await answer.consumeStream();
    const [call] = await answer.toolCalls;
    return { name: call.toolName, arguments: call.input };
  },

  async schema() {
    const output = Output.object({ schema: jsonSchema(SCHEMA), name: "city" });
    return (await generateText({ ...asked, output, maxOutputTokens: 80 })).output;
  },

  async abort() {
    const leave = new AbortController();
    const answer = streamText({
      ...asked, abortSignal: leave.signal, maxOutputTokens: LONG.max_tokens,
      providerOptions: { herd: { ignore_eos: true } },
    });
    let number = 0;
    for await (const text of answer.textStream) {
      if (text && ++number === 5) leave.abort();
    }
    return number;
  },

  async errors() {
    const short = { ...asked, maxOutputTokens: 1 };
    const guarded = { ...short, model: connect(GUARDED_URL, KEY) };
    await generateText(guarded);
    return {
      "unknown model": await raised(() => generateText({ ...short, model: connect(URL, "none", "gpt-9") })),
      "bad parameter": await raised(() => generateText({ ...short, topP: 2 })),
      "wrong key": await raised(() => generateText({ ...short, model: connect(GUARDED_URL, "wrong") })),
      "too many": await raised(() => generateText(guarded)),
    };
  },
});
