import { journeys } from './journeys.mjs';

journeys('same name', 5);
