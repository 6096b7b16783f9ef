import { journeys } from './journeys.mjs';

journeys('another name', 3);
